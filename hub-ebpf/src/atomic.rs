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

/// Reads a word that other CPUs exchange.
#[inline(always)]
pub(crate) fn read(word: &u64) -> u64 {
    // SAFETY: the reference is valid and aligned.
    unsafe { core::ptr::read_volatile(word) }
}

/// Stores `new` if the word still is `old`; says whether it did.
#[inline(always)]
pub(crate) fn exchange(word: &mut u64, old: u64, new: u64) -> bool {
    #[cfg(target_arch = "bpf")]
    // SAFETY: the reference is valid and aligned, and every writer of such words uses this function.
    unsafe {
        let (_, stored) = core::intrinsics::atomic_cxchg::<
            u64,
            { core::intrinsics::AtomicOrdering::SeqCst },
            { core::intrinsics::AtomicOrdering::SeqCst },
        >(word, old, new);
        stored
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        let is_old = *word == old;
        if is_old {
            *word = new;
        }
        is_old
    }
}
