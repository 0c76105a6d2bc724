"""Many runs or records, one answer: functionals, transfer, scaling."""
