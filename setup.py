"""What pyproject.toml can't say: recipes, at the top level of the repository, are installed inside the package."""

from setuptools import find_packages, setup


setup(
    packages=[*find_packages(include=["hf_dataselect", "hf_dataselect.*"]), "hf_dataselect.recipes"],
    package_dir={"hf_dataselect.recipes": "recipes"},
    package_data={"hf_dataselect.recipes": ["*.yaml", "*/*"]},
)
