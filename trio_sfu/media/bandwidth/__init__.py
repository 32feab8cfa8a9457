"""How much one transport can carry towards its viewer, and who of its consumers gets how much of it.

Pure machines without I/O; all times are seconds on one monotonic clock, all rates bit/s, all sizes bytes.
:class:`~trio_sfu.media.bandwidth.estimator.BandwidthEstimator` is the only face of the estimate,
:class:`~trio_sfu.media.bandwidth.allocation.Allocator` that of the allocation.
"""
