"""Proton collisions by Pythia, jets by fastjet, a parametrised detector. Neither is imported before events are made."""
