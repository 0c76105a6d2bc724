from rung.training.wording import in_words


def test_errors_in_the_units_of_the_field():
    errors = {"loss": 1.0, "energy_mae": 0.2183, "energy_rmse": 9.0, "force_mae": 0.058, "stress_mae": 0.9734}
    assert in_words(errors) == "energy 218 meV/atom, force 58 meV/Å, stress 0.973 GPa"


def test_large_and_absent_errors():
    assert in_words({"energy_mae": 11.1894, "magmom_mae": 0.0831}) == "energy 11,189 meV/atom, magmom 0.0831 μB"
    assert in_words({}) == ""
