//! Waits until every packet that may have read an old index has left the programs.

/// `MEMBARRIER_CMD_GLOBAL`: returns after every CPU has passed a quiescent state, which includes an RCU
/// grace period. About 20 ms.
const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;

/// Waits for a grace period. Programs run to their end with preemption off, so after it none that began
/// before the call is still running.
#[expect(unsafe_code, reason = "the system call has no wrapper")]
pub fn wait() {
    // SAFETY: no pointers; an unknown command returns an error.
    let answer = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if answer != 0 {
        // Kernels with nohz_full refuse it; programs take microseconds.
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}
