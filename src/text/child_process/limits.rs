//! What a child process sets for itself before it works on what others wrote.

use std::ffi::CStr;
use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

/// Sets the name that process lists show.
pub(in crate::text) fn name_process(name: &CStr) {
    #[cfg(target_os = "linux")]
    // The name is optional.
    let _ = rustix::thread::set_name(name);
    #[cfg(not(target_os = "linux"))]
    let _ = name;
}

/// When memory runs out, the kernel should kill this process rather than the server.
pub(in crate::text) fn die_first() {
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
}

/// Lets this process have `num_bytes` of memory more than it has now, stacks included.
pub(in crate::text) fn limit_memory(num_bytes: u64) {
    // No core files, because they would contain clients' data.
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let _ = setrlimit(Resource::Core, none);
    let Some(mapped) = mapped_bytes() else {
        return;
    };
    let most = mapped + num_bytes;
    let most = Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    let _ = setrlimit(Resource::As, most);
}

/// Makes the kernel end the process after this many more seconds of CPU time.
pub(in crate::text) fn limit_cpu(seconds: u64) {
    let used = clock_gettime(ClockId::ProcessCPUTime).tv_sec;
    let wanted = u64::try_from(used).unwrap_or(0) + seconds;
    // The hard limit stays unchanged.
    let maximum = getrlimit(Resource::Cpu).maximum;
    let current = Some(maximum.map_or(wanted, |maximum| maximum.min(wanted)));
    let _ = setrlimit(Resource::Cpu, Rlimit { current, maximum });
}

/// Returns the address space in use; `None` if the kernel does not report it.
fn mapped_bytes() -> Option<u64> {
    let pages = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = pages.split(' ').next()?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}
