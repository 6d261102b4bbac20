//! Addition that no other CPU can lose, and a claim that only one can make.
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

/// Takes a word that is 0 for its caller; false where somebody else has it.
#[inline(always)]
pub(crate) fn claim(word: &mut u32) -> bool {
    #[cfg(target_arch = "bpf")]
    // SAFETY: the reference is valid and aligned.
    let (_, taken) = unsafe {
        core::intrinsics::atomic_cxchg::<
            u32,
            { core::intrinsics::AtomicOrdering::SeqCst },
            { core::intrinsics::AtomicOrdering::SeqCst },
        >(word, 0, 1)
    };
    #[cfg(not(target_arch = "bpf"))]
    let taken = core::mem::replace(word, 1) == 0;
    taken
}
