//! Addition that no other CPU can lose.
//!
//! `AtomicU64` has no read-modify-write operations on the BPF target; the intrinsic behind them has.

/// Adds to a counter that several CPUs share.
#[inline(always)]
pub(crate) fn add(counter: &mut u64, amount: u64) {
    #[cfg(target_arch = "bpf")]
    // SAFETY: the reference is valid and aligned, and every writer of shared counters uses this function.
    unsafe {
        core::intrinsics::atomic_xadd::<u64, u64, { core::intrinsics::AtomicOrdering::Relaxed }>(
            counter, amount,
        );
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        *counter += amount;
    }
}
