help:
	@echo make help
