//! `kill`.

use crate::cli::{Global, Kill};
use crate::container::{Status, Store};
use crate::error::{Failure, Outcome};
use crate::sandbox::launch::connect;
use crate::spec::names::signal;
use ::sentry::control::message::{Ask, SignalTarget};

/// `kill`.
pub(super) fn kill(global: &Global, args: &Kill) -> Outcome<u8> {
    // 0 only asks whether there is somebody to signal (kill(2)).
    let number = match args.signal.as_str() {
        "0" => 0,
        name => signal(name).ok_or_else(|| Failure::new(format!("unknown signal {name:?}")))?,
    };
    let store = Store::open(global)?;
    let record = store.peek(&args.id)?;
    if record.status() == Status::Stopped {
        if args.all {
            // What outlived the first process in a pid namespace of the pod. Nothing left is as good, as under runc.
            let ask = Ask::Signal { container: args.id.clone(), target: SignalTarget::All, signal: number };
            if let (false, Ok(mut client)) = (record.is_root(), connect(&store.socket(&record.sandbox))) {
                let _ = client.last_order(ask);
            }
            return Ok(0);
        }
        return Err(Failure::new(format!("container not running: {:?} has stopped", args.id)));
    }
    if number == 0 {
        return Ok(0);
    }
    let target = if args.all { SignalTarget::All } else { SignalTarget::Init };
    let container = args.id.clone();
    connect(&store.socket(&record.sandbox))?.last_order(Ask::Signal { container, target, signal: number })?;
    Ok(0)
}
