"""loop.toml as dataclasses: every key, its default, its unit and its range."""

from edgeloop.loop.config.decisions import (
    ConstraintsConfig,
    DeviceConfig,
    EnergyConfig,
    GateConfig,
    PaceConfig,
    TriggerConfig,
)
from edgeloop.loop.config.stream import (
    AugmentConfig,
    BufferConfig,
    FeedbackConfig,
    PrivacyConfig,
    SourceConfig,
    WindowConfig,
)
from edgeloop.loop.config.training import (
    EarlyStoppingConfig,
    OverfittingConfig,
    TrainConfig,
)
from edgeloop.loop.config.whole import (
    BaseConfig,
    BudgetConfig,
    Config,
    ModelConfig,
    StateConfig,
    UpdateConfig,
)

__all__ = [
    "AugmentConfig",
    "BaseConfig",
    "BudgetConfig",
    "BufferConfig",
    "Config",
    "ConstraintsConfig",
    "DeviceConfig",
    "EarlyStoppingConfig",
    "EnergyConfig",
    "FeedbackConfig",
    "GateConfig",
    "ModelConfig",
    "OverfittingConfig",
    "PaceConfig",
    "PrivacyConfig",
    "SourceConfig",
    "StateConfig",
    "TrainConfig",
    "TriggerConfig",
    "UpdateConfig",
    "WindowConfig",
]
