"""The false-positive rate of the verdict, measured by `benchmarks.blind_test calibrate`.

`studies/results/blind_test` says which circuits were judged, and what the rate does not say.
"""

from wirework.circuits.validation.validation_report import Calibration

CALIBRATION = Calibration(n_null=210, n_passed=0, highest_rate=0.0142)
