"""Can `validate` tell circuits of a mechanism from circuits of none? Its bars, and a blind test.

`python -m benchmarks.blind_test calibrate` measures the false-positive rate of the verdict's bars;
`python -m benchmarks.blind_test sort` lets `validate` sort 40 unlabelled circuits.
"""
