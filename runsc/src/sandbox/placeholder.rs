//! Stands in for the kernel until it is linked in: its processes only end. `true`, `false`, `exit N` and
//! `sleep` (until a signal) are known; anything else is not found.

use ::sentry::control::message::{ContainerStatus, ControlError, ErrorKind, ProcessInfo, SignalTarget, Stats};
use ::sentry::control::spec::{BootConfig, ContainerSpec, ProcessSpec};
use ::sentry::control::{ControlResult, Donated, ExitNotice, ExitStatus, SandboxControl};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Default)]
struct Process {
    container: String,
    args: Vec<String>,
    started: bool,
    status: Option<ExitStatus>,
    notices: Vec<ExitNotice>,
    _donated: Donated,
}

/// The stand-in.
pub(crate) struct Placeholder {
    processes: Mutex<BTreeMap<(String, u32), Process>>,
}

impl Placeholder {
    /// For this sandbox.
    pub(crate) fn new(_config: BootConfig) -> Placeholder {
        Placeholder { processes: Mutex::new(BTreeMap::new()) }
    }
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(String, u32), Process>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Process {
    fn new(container: &str, spec: &ProcessSpec, donated: Donated) -> ControlResult<Process> {
        let name = spec.args.first().map(String::as_str).unwrap_or_default();
        let name = name.rsplit('/').next().unwrap_or_default();
        if !["true", "false", "exit", "sleep"].contains(&name) {
            let message = format!("{name}: executable file not found");
            return Err(ControlError::new(ErrorKind::ProgramNotFound, message));
        }
        let args = std::iter::once(name.to_owned()).chain(spec.args.iter().skip(1).cloned()).collect();
        Ok(Process { container: container.to_owned(), args, _donated: donated, ..Process::default() })
    }
    fn start(&mut self) {
        self.started = true;
        let number = || self.args.get(1).and_then(|n| n.parse().ok()).unwrap_or(0);
        match self.args.first().map(String::as_str) {
            Some("true") => self.end(ExitStatus::Exited(0)),
            Some("false") => self.end(ExitStatus::Exited(1)),
            Some("exit") => self.end(ExitStatus::Exited(number())),
            _ => {}
        }
    }
    fn end(&mut self, status: ExitStatus) {
        if self.status.is_none() {
            self.status = Some(status);
            self.notices.drain(..).for_each(|notice| notice(status));
        }
    }
}

impl SandboxControl for Placeholder {
    fn create_container(&self, spec: ContainerSpec, donated: Donated) -> ControlResult<()> {
        let process = Process::new(&spec.id, &spec.process, donated)?;
        self.lock().insert((spec.id, 1), process);
        Ok(())
    }
    fn start(&self, container: &str) -> ControlResult<()> {
        let mut all = self.lock();
        let process = all.get_mut(&(container.to_owned(), 1)).ok_or_else(|| ControlError::no_container(container))?;
        process.start();
        Ok(())
    }
    fn exec(&self, container: &str, process: ProcessSpec, donated: Donated) -> ControlResult<u32> {
        let mut all = self.lock();
        let pid = u32::try_from(all.len()).unwrap_or(0) + 1;
        let mut process = Process::new(container, &process, donated)?;
        process.start();
        all.insert((container.to_owned(), pid), process);
        Ok(pid)
    }
    fn signal(&self, container: &str, target: SignalTarget, signal: u8) -> ControlResult<()> {
        let mut all = self.lock();
        for ((id, pid), process) in all.iter_mut() {
            let hit = match target {
                SignalTarget::Init | SignalTarget::Foreground(_) => *pid == 1,
                SignalTarget::All => true,
                SignalTarget::Process(wanted) => *pid == wanted,
            };
            if hit && id == container && signal != 0 {
                process.end(ExitStatus::Killed(signal));
            }
        }
        Ok(())
    }
    fn wait(&self, container: &str, pid: Option<u32>, notice: ExitNotice) -> ControlResult<()> {
        let mut all = self.lock();
        let key = (container.to_owned(), pid.unwrap_or(1));
        let process = all.get_mut(&key).ok_or_else(|| ControlError::no_container(container))?;
        match process.status {
            Some(status) => notice(status),
            None => process.notices.push(notice),
        }
        Ok(())
    }
    fn status(&self, container: &str) -> ControlResult<ContainerStatus> {
        let all = self.lock();
        let process = all.get(&(container.to_owned(), 1)).ok_or_else(|| ControlError::no_container(container))?;
        Ok(match (process.started, process.status) {
            (_, Some(_)) => ContainerStatus::Stopped,
            (true, None) => ContainerStatus::Running,
            (false, None) => ContainerStatus::Created,
        })
    }
    fn processes(&self, container: &str) -> ControlResult<Vec<ProcessInfo>> {
        let all = self.lock();
        let living = all.iter().filter(|(_, process)| process.container == container && process.status.is_none());
        Ok(living
            .map(|((_, pid), process)| ProcessInfo {
                pid: *pid,
                ppid: 0,
                uid: 0,
                threads: 1,
                start_time: 0,
                cpu_ms: 0,
                tty: "?".to_owned(),
                command: process.args.join(" "),
            })
            .collect())
    }
    fn stats(&self, _container: &str) -> ControlResult<Stats> {
        Ok(Stats::default())
    }
    fn resized(&self, _container: &str, _pid: Option<u32>) -> ControlResult<()> {
        Ok(())
    }
    fn delete(&self, container: &str) -> ControlResult<()> {
        self.signal(container, SignalTarget::All, 9)?;
        self.lock().retain(|(id, _), _| id != container);
        Ok(())
    }
}
