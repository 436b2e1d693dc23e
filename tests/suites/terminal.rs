//! A person at a terminal: `runsc run` of a shell, driven through a pseudo-terminal. Job control, Ctrl-C, Ctrl-Z,
//! window size, exit status.

use serde_json::json;
use std::time::Duration;
use tests::bundle::Bundle;
use tests::pty::Terminal;
use tests::{PLATFORMS, rootfs};

#[test]
fn a_shell_with_job_control() {
    for platform in PLATFORMS {
        let mut bundle = Bundle::new(rootfs::busybox(), &["/bin/sh"]);
        *bundle.config.pointer_mut("/process/terminal").expect("a field") = json!(true);
        *bundle.config.pointer_mut("/process/env").expect("a field") =
            json!(["PATH=/bin", "PS1=guest$ ", "TERM=dumb"]);
        let mut session = Terminal::start(&mut bundle.run(platform));
        session.expect("guest$ ");
        session.type_in("tty; stty size\n");
        session.expect("/dev/pts/0\r\n33 101\r\n");
        session.type_in("sleep 100\n");
        session.expect("sleep 100\r\n");
        std::thread::sleep(Duration::from_millis(300));
        session.type_in("\x03");
        session.expect("^C");
        session.type_in("echo code=$?\n");
        session.expect("\r\ncode=130\r\n");
        session.type_in("sleep 200\n");
        session.expect("sleep 200\r\n");
        std::thread::sleep(Duration::from_millis(300));
        session.type_in("\x1a");
        session.expect("Stopped");
        session.type_in("jobs\n");
        session.expect("Stopped");
        session.type_in("kill %1; fg\n");
        session.expect("Terminated");
        session.resize(44, 120);
        std::thread::sleep(Duration::from_millis(200));
        session.type_in("stty size\n");
        session.expect("44 120\r\n");
        session.type_in("exit 5\n");
        assert_eq!(session.end(), Some(5), "{platform}");
    }
}
