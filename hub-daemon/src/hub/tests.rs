//! Scripts in virtual time: what the hub wants after a sequence of commands.
