//! A program that the daemon runs with `BPF_PROG_TEST_RUN` to read very many counters: it adds up what every
//! CPU counted, for which user space would need a look at each element.

use aya_ebpf::cty::c_void;
use aya_ebpf::helpers::generated::bpf_map_lookup_percpu_elem;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use hub_common::limits;
use hub_common::stats::{SUM_COUNTERS, SUM_FLOWS_BEGUN, SUM_RULE_HITS, SUM_WORDS};

use crate::maps::{COUNTERS, FLOWS_BEGUN, RULE_HITS, SUMS};
use crate::tc::NEXT;

/// Sums one element, whose index is the mark, of the map that the priority names, and moves the mark on: run
/// again, it sums the next one.
#[classifier]
pub(crate) fn hub_sum(ctx: TcContext) -> i32 {
    let skb = ctx.skb.skb;
    // SAFETY: fields of the context.
    let (index, which) = unsafe { ((*skb).mark, (*skb).priority) };
    ctx.set_mark(index.wrapping_add(1));
    let Some(sum) = SUMS.get_ptr_mut(index & (limits::SUMS - 1)) else { return NEXT };
    // SAFETY: a map value; the daemon runs this program once at a time.
    let sum = unsafe { &mut (*sum).words };
    *sum = [0; SUM_WORDS];
    match which {
        SUM_COUNTERS => add::<8>((&raw const COUNTERS).cast(), index, sum),
        SUM_FLOWS_BEGUN => add::<3>((&raw const FLOWS_BEGUN).cast(), index, sum),
        SUM_RULE_HITS => add::<3>((&raw const RULE_HITS).cast(), index, sum),
        _ => {}
    }
    NEXT
}

/// Adds the first words of an element of every CPU.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "the same place of a sum and of a value behind a pointer")]
fn add<const WORDS: usize>(map: *const c_void, index: u32, sum: &mut [u64; SUM_WORDS]) {
    for cpu in 0..limits::SUM_CPUS {
        // SAFETY: the map is one of this object's, its key an index.
        let found = unsafe { bpf_map_lookup_percpu_elem(map.cast_mut(), (&raw const index).cast(), cpu) };
        // There are no more CPUs.
        if found.is_null() {
            return;
        }
        for word in 0..WORDS {
            // SAFETY: values of the map have so many words; the verifier knows its size.
            sum[word] += unsafe { *found.cast::<u64>().add(word) };
        }
    }
}
