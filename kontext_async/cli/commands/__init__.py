"""The commands, one module each. `kontext_async.cli.app` registers them by name, so that a call imports only one.

- `generate`: runs prompts given as arguments
- `bulk`: runs a prompt file, and resumes it
- `report`: regenerates the reports of a bulk run
- `status`: prints the status of tasks
- `fetch`: saves the images of an earlier task
- `cancel`: cancels tasks
- `balance`: prints the balance of the account
- `emulator`: runs the emulator
"""
