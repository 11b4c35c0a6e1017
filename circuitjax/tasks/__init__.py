"""Binary tasks on Python code: pairs of prompts that differ in little and go on differently."""
