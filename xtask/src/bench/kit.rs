//! The bench's own kernel programs: loaded once for each place, so that each has its own plan and counts.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, PerCpuArray, ProgramArray},
    programs::{
        ProgramFd, SchedClassifier, TcAttachType, TestRun as _, TestRunAttrs, TestRunOptions, Xdp, XdpMode,
    },
};
use hub_common::bench::{FRAME_BYTES, Plan, Seen};

/// Frames that the kernel makes before it lets the receivers run: its NAPI budget.
const BATCH: u32 = 64;

/// The loaded object.
#[derive(Debug)]
pub(super) struct Kit {
    ebpf: Ebpf,
}

impl Kit {
    /// Loads maps; programs are loaded when they are used.
    pub(super) fn load(object: &Path) -> Result<Self> {
        let bytes = fs::read(object).with_context(|| format!("read {}", object.display()))?;
        let ebpf = EbpfLoader::new().load(&bytes).with_context(|| format!("load {}", object.display()))?;
        Ok(Self { ebpf })
    }

    /// Says what to do from the next packet on.
    pub(super) fn plan(&mut self, plan: &Plan) -> Result<()> {
        let map = self.ebpf.map_mut("PLAN").context("the bench object has no PLAN")?;
        Array::<_, Plan>::try_from(map)?.set(0, plan, 0).context("put the plan")
    }

    /// Sum of what was counted on all CPUs.
    pub(super) fn seen(&self) -> Result<Seen> {
        let map = self.ebpf.map("SEEN").context("the bench object has no SEEN")?;
        let values = PerCpuArray::<_, Seen>::try_from(map)?.get(&0, 0)?;
        let add = |sum: Seen, seen: &Seen| Seen {
            packets: sum.packets + seen.packets,
            wrong: sum.wrong + seen.wrong,
        };
        Ok(values.iter().fold(Seen::ZERO, add))
    }

    /// An XDP program, loaded.
    pub(super) fn xdp(&mut self, name: &str) -> Result<&mut Xdp> {
        let program =
            self.ebpf.program_mut(name).with_context(|| format!("the bench object has no {name}"))?;
        let program: &mut Xdp = program.try_into()?;
        if program.fd().is_err() {
            program.load().with_context(|| format!("load {name}"))?;
        }
        Ok(program)
    }

    /// A TC program, loaded.
    pub(super) fn tc(&mut self, name: &str) -> Result<&mut SchedClassifier> {
        let program =
            self.ebpf.program_mut(name).with_context(|| format!("the bench object has no {name}"))?;
        let program: &mut SchedClassifier = program.try_into()?;
        if program.fd().is_err() {
            program.load().with_context(|| format!("load {name}"))?;
        }
        Ok(program)
    }

    /// Puts an XDP program on an interface of the calling thread's namespace, for as long as the kit lives.
    pub(super) fn attach_xdp(&mut self, name: &str, interface: &str) -> Result<()> {
        let attached = self.xdp(name)?.attach(interface, XdpMode::Driver);
        attached.map(drop).with_context(|| format!("attach {name} to {interface}"))
    }

    /// As [`Self::attach_xdp`], for TC ingress.
    pub(super) fn attach_tc(&mut self, name: &str, interface: &str) -> Result<()> {
        let attached = self.tc(name)?.attach(interface, TcAttachType::Ingress);
        attached.map(drop).with_context(|| format!("attach {name} to {interface}"))
    }

    /// Sends packets of the plan; everything up to their end happens in this call.
    pub(super) fn generate(&mut self, packets: u32) -> Result<()> {
        let frame = [0; FRAME_BYTES];
        let program = self.xdp("bench_generate")?;
        let options = TestRunOptions {
            data_in: Some(&frame),
            repeat: packets,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH.min(packets)),
            ..TestRunOptions::new()
        };
        program.test_run(options).context("send packets")?;
        Ok(())
    }

    /// Makes the mutators hand their packets to this program.
    pub(super) fn test(&mut self, program: &ProgramFd) -> Result<()> {
        let map = self.ebpf.map_mut("TESTED").context("the bench object has no TESTED")?;
        ProgramArray::try_from(map)?.set(0, program, 0).context("put the program under test")
    }
}

/// How many interfaces' programs a test run may claim to come from: the context of XDP and of TC.
#[derive(Clone, Copy, Debug)]
pub(super) enum Context {
    Xdp(u32),
    Tc(u32),
}

impl Context {
    /// `struct xdp_md` or `struct __sk_buff` that names the ingress interface.
    pub(super) fn bytes(self) -> Vec<u8> {
        let mut bytes = match self {
            Self::Xdp(_) => vec![0; 24],
            Self::Tc(_) => vec![0; 192],
        };
        let (at, number) = match self {
            // data, data_end, data_meta, ingress_ifindex
            Self::Xdp(ifindex) => (12, ifindex),
            // … ingress_ifindex, ifindex
            Self::Tc(ifindex) => (40, ifindex),
        };
        if let Some(field) = bytes.get_mut(at..at + 4) {
            field.copy_from_slice(&number.to_ne_bytes());
        }
        if let (Self::Xdp(_), Some(field)) = (self, bytes.get_mut(4..8)) {
            field.copy_from_slice(&(FRAME_BYTES as u32).to_ne_bytes());
        }
        bytes
    }
}

/// Index of an interface in the calling thread's namespace.
pub(super) fn index_of(interface: &str) -> Result<u32> {
    let index = nix::net::if_::if_nametoindex(interface).with_context(|| format!("find {interface}"))?;
    if index == 0 {
        bail!("interface {interface} has no index");
    }
    Ok(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_name_the_interface_where_the_kernel_reads_it() {
        assert_eq!(Context::Xdp(0x0102).bytes()[12..16], 0x0102_u32.to_ne_bytes());
        assert_eq!(Context::Tc(7).bytes()[40..44], 7_u32.to_ne_bytes());
    }
}
