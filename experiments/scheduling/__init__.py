"""The study at work: a scheduler reconciles the plan with the record, and gives the missing cells to slots."""
