//! The system calls of x86_64 Linux: their names, and which of them work on files.

use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::libc::{self, user_regs_struct};
use nix::unistd::Pid;

use super::order::Deed;

/// One call at its entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) thread: Pid,
    number: i64,
    arguments: [u64; 4],
}

/// What can be wrong with a call on a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Kind {
    /// It works on a file or a directory: a disk that fails, fails it.
    pub(super) file: bool,
    /// It may need room: a full disk fails it.
    pub(super) allocates: bool,
    /// It writes at least two octets from one place: it may write fewer.
    pub(super) writes: bool,
}

impl Call {
    pub(super) fn new(thread: Pid, registers: &user_regs_struct) -> Self {
        let number = registers.orig_rax.cast_signed();
        let arguments = [registers.rdi, registers.rsi, registers.rdx, registers.r10];
        Self { thread, number, arguments }
    }

    /// What the call is, as far as faults of a disk are concerned. Sockets, pipes, event counters and devices are no files.
    pub(super) fn kind(&self) -> Kind {
        let file = || Kind { file: self.is_file(), ..Kind::default() };
        let with_room = |kind: Kind| Kind { allocates: kind.file, ..kind };
        match self.number {
            libc::SYS_write | libc::SYS_pwrite64 => {
                let kind = with_room(file());
                Kind { writes: kind.file && self.arguments[2] >= 2, ..kind }
            }
            libc::SYS_writev
            | libc::SYS_pwritev
            | libc::SYS_pwritev2
            | libc::SYS_ftruncate
            | libc::SYS_fallocate
            | libc::SYS_fsync
            | libc::SYS_fdatasync
            | libc::SYS_sync_file_range
            | libc::SYS_syncfs
            | libc::SYS_copy_file_range => with_room(file()),
            libc::SYS_read
            | libc::SYS_pread64
            | libc::SYS_readv
            | libc::SYS_preadv
            | libc::SYS_preadv2
            | libc::SYS_getdents64
            | libc::SYS_fstat
            | libc::SYS_fstatfs
            | libc::SYS_fchmod
            | libc::SYS_fchown => file(),
            libc::SYS_open | libc::SYS_openat => {
                let flags = self.arguments[if self.number == libc::SYS_open { 1 } else { 2 }];
                let creates = flags & u64::from(libc::O_CREAT.cast_unsigned()) != 0;
                Kind { file: true, allocates: creates, writes: false }
            }
            libc::SYS_creat
            | libc::SYS_mkdir
            | libc::SYS_mkdirat
            | libc::SYS_link
            | libc::SYS_linkat
            | libc::SYS_symlink
            | libc::SYS_symlinkat
            | libc::SYS_rename
            | libc::SYS_renameat
            | libc::SYS_renameat2 => Kind { file: true, allocates: true, writes: false },
            libc::SYS_openat2
            | libc::SYS_unlink
            | libc::SYS_unlinkat
            | libc::SYS_rmdir
            | libc::SYS_stat
            | libc::SYS_lstat
            | libc::SYS_newfstatat
            | libc::SYS_statx
            | libc::SYS_statfs
            | libc::SYS_access
            | libc::SYS_faccessat
            | libc::SYS_faccessat2
            | libc::SYS_readlink
            | libc::SYS_readlinkat
            | libc::SYS_chmod
            | libc::SYS_fchmodat
            | libc::SYS_chown
            | libc::SYS_fchownat
            | libc::SYS_utimensat => Kind { file: true, ..Kind::default() },
            _ => Kind::default(),
        }
    }

    /// Whether a disk that is full fails it for as long as it is full: a sync or a new name in a directory may still succeed.
    pub(super) fn needs_blocks(&self) -> bool {
        !matches!(
            self.number,
            libc::SYS_fsync
                | libc::SYS_fdatasync
                | libc::SYS_sync_file_range
                | libc::SYS_syncfs
                | libc::SYS_rename
                | libc::SYS_renameat
                | libc::SYS_renameat2
        )
    }

    /// Whether the first argument is an open file, which has a path in a file system of a disk.
    fn is_file(&self) -> bool {
        let is_device = |path: &str| path.starts_with("/dev/") && !path.starts_with("/dev/shm/");
        self.opened().is_some_and(|path| path.starts_with('/') && !is_device(&path))
    }

    /// What is behind the descriptor in the first argument.
    fn opened(&self) -> Option<String> {
        let link = format!("/proc/{}/fd/{}", self.thread, self.arguments[0]);
        Some(std::fs::read_link(link).ok()?.to_string_lossy().into_owned())
    }

    /// Name, thread and what it works on, for a person. Only while the thread is stopped in the call.
    pub(super) fn describe(&self) -> String {
        let thread = std::fs::read_to_string(format!("/proc/{}/comm", self.thread)).unwrap_or_default();
        let kind = self.kind();
        let first = if kind.file { self.opened().or_else(|| self.text(0)) } else { None };
        let what = [first, if kind.file { self.text(1) } else { None }].into_iter().flatten().collect::<Vec<_>>();
        format!("{} of thread {:?} {}", self.name(), thread.trim_end(), what.join(" "))
    }

    /// Name and arguments as numbers: nothing is asked of the program.
    pub(super) fn brief(&self) -> String {
        let [a, b, c, d] = self.arguments;
        format!("[{}] {}({a:#x}, {b:#x}, {c:#x}, {d:#x})", self.thread, self.name())
    }

    /// What the call does for the order of things.
    pub(super) fn deed(&self) -> Option<Deed> {
        let named = |at: usize| {
            let directory = Self { arguments: [self.arguments[at]; 4], ..*self }.opened();
            let name = self.text(at + 1)?;
            Some(if name.starts_with('/') { name } else { format!("{}/{name}", directory?) })
        };
        match self.number {
            libc::SYS_write | libc::SYS_pwrite64 | libc::SYS_writev | libc::SYS_sendto => {
                let what = self.opened()?;
                if what.starts_with("socket:") {
                    let asked = if self.number == libc::SYS_writev {
                        let vector = self.octets(self.arguments[1], 16)?;
                        let (start, length) = vector.split_first_chunk::<8>()?;
                        let length = u64::from_ne_bytes(*length.first_chunk::<8>()?);
                        self.octets(u64::from_ne_bytes(*start), length)?
                    } else {
                        self.octets(self.arguments[1], self.arguments[2])?
                    };
                    return Some(Deed::Asked(String::from_utf8_lossy(&asked).into_owned()));
                }
                self.is_file().then_some(Deed::Wrote(what))
            }
            libc::SYS_fsync | libc::SYS_fdatasync => self.opened().map(Deed::Synced),
            libc::SYS_renameat | libc::SYS_renameat2 => Some(Deed::Moved { from: named(0)?, to: named(2)? }),
            _ => None,
        }
    }

    /// Some of the program's memory, at most 4 KiB.
    fn octets(&self, address: u64, length: u64) -> Option<Vec<u8>> {
        let mut octets = vec![0; usize::try_from(length).ok()?.min(4096)];
        let memory = std::fs::File::open(format!("/proc/{}/mem", self.thread)).ok()?;
        memory.read_exact_at(&mut octets, address).ok()?;
        Some(octets)
    }

    /// A path among the arguments.
    fn text(&self, argument: usize) -> Option<String> {
        let memory = std::fs::File::open(format!("/proc/{}/mem", self.thread)).ok()?;
        let mut octets = [0; 256];
        let read = match memory.read_at(&mut octets, self.arguments[argument]) {
            Ok(read) => read,
            // The last page of a region may be shorter than what was asked for.
            Err(error) if error.kind() == ErrorKind::Interrupted => return None,
            Err(_) => memory.read_at(&mut octets[..16], self.arguments[argument]).ok()?,
        };
        let text = octets[..read].split(|octet| *octet == 0).next()?;
        let text = std::str::from_utf8(text).ok()?;
        let is_path = !text.is_empty() && !text.contains(char::is_control) && Path::new(text).file_name().is_some();
        is_path.then(|| text.to_owned())
    }

    fn name(&self) -> String {
        NAMES.iter().find(|(number, _)| *number == self.number).map_or_else(
            || format!("call {}", self.number),
            |(_, name)| {
                let name = *name;
                name.to_owned()
            },
        )
    }
}

macro_rules! names {
    ($($name:ident)*) => { &[$((libc::$name, stringify!($name).split_at(4).1)),*] };
}

/// What the program calls, and its C library.
const NAMES: &[(i64, &str)] = names![
    SYS_read SYS_write SYS_open SYS_close SYS_stat SYS_fstat SYS_lstat SYS_poll SYS_lseek SYS_mmap SYS_mprotect SYS_munmap
    SYS_brk SYS_rt_sigaction SYS_rt_sigprocmask SYS_ioctl SYS_pread64 SYS_pwrite64 SYS_readv SYS_writev SYS_access SYS_pipe
    SYS_select SYS_sched_yield SYS_mremap SYS_madvise SYS_dup SYS_dup2 SYS_nanosleep SYS_getpid SYS_socket SYS_connect
    SYS_accept SYS_sendto SYS_recvfrom SYS_sendmsg SYS_recvmsg SYS_shutdown SYS_bind SYS_listen SYS_getsockname
    SYS_getpeername SYS_socketpair SYS_setsockopt SYS_getsockopt SYS_clone SYS_fork SYS_vfork SYS_execve SYS_exit
    SYS_wait4 SYS_kill SYS_uname SYS_fcntl SYS_flock SYS_fsync SYS_fdatasync SYS_truncate SYS_ftruncate SYS_getdents
    SYS_getcwd SYS_chdir SYS_rename SYS_mkdir SYS_rmdir SYS_creat SYS_link SYS_unlink SYS_symlink SYS_readlink SYS_chmod
    SYS_fchmod SYS_chown SYS_fchown SYS_umask SYS_getrlimit SYS_getrusage SYS_sysinfo SYS_getuid SYS_getgid SYS_setuid
    SYS_setgid SYS_geteuid SYS_getegid SYS_setpgid SYS_getppid SYS_setsid SYS_sigaltstack SYS_statfs SYS_fstatfs SYS_prctl
    SYS_arch_prctl SYS_setrlimit SYS_sync SYS_gettid SYS_futex SYS_sched_setaffinity SYS_sched_getaffinity
    SYS_epoll_create SYS_getdents64 SYS_set_tid_address SYS_restart_syscall SYS_fadvise64 SYS_clock_gettime
    SYS_clock_nanosleep SYS_exit_group SYS_epoll_wait SYS_epoll_ctl SYS_tgkill SYS_waitid SYS_openat SYS_mkdirat
    SYS_fchownat SYS_newfstatat SYS_unlinkat SYS_renameat SYS_linkat SYS_symlinkat SYS_readlinkat SYS_fchmodat
    SYS_faccessat SYS_ppoll SYS_set_robust_list SYS_sync_file_range SYS_utimensat SYS_epoll_pwait SYS_eventfd
    SYS_fallocate SYS_accept4 SYS_signalfd4 SYS_eventfd2 SYS_epoll_create1 SYS_dup3 SYS_pipe2 SYS_inotify_init1
    SYS_preadv SYS_pwritev SYS_prlimit64 SYS_syncfs SYS_sendmmsg SYS_getcpu SYS_renameat2 SYS_getrandom
    SYS_memfd_create SYS_copy_file_range SYS_preadv2 SYS_pwritev2 SYS_statx SYS_rseq SYS_clone3 SYS_close_range
    SYS_openat2 SYS_faccessat2
];
