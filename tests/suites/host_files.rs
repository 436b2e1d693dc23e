//! Files of the host under a running container: changes from outside, a root that is the kernel's overlayfs, a volume
//! that containers of a pod share.

use serde_json::json;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;
use tests::bundle::{Bundle, own_root, set};
use tests::{command, rootfs};

const LIMIT: Duration = Duration::from_secs(120);

/// A shell in a container that is told what to do line by line.
struct Shell {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    _bundle: Bundle,
}

impl Shell {
    fn start(bundle: Bundle, platform: &str) -> Shell {
        let mut child =
            bundle.run(platform).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("runsc");
        let (input, output) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        Shell { child, input, output: BufReader::new(output), _bundle: bundle }
    }

    /// What a line of shell prints.
    fn say(&mut self, line: &str) -> String {
        writeln!(self.input, "{line}; echo \"--end--\"").expect("the shell reads");
        let mut all = String::new();
        loop {
            let mut got = String::new();
            assert_ne!(self.output.read_line(&mut got).expect("the shell writes"), 0, "{line}: {all}");
            if let Some(last) = got.trim_end_matches('\n').strip_suffix("--end--") {
                return all + last;
            }
            all += &got;
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // It ends with its input; a failed test does not wait for it.
        let _ = writeln!(self.input, "exit");
        let _ = self.child.wait();
    }
}

#[test]
fn changes_of_the_host_show_at_once_on_a_bind() {
    let (mut bundle, root) = own_root("");
    set(&mut bundle, "/process/args", json!(["/bin/sh"]));
    let shared = root.join("shared");
    fs::create_dir(&shared).expect("a folder");
    let mut shell = Shell::start(bundle.bind(&shared, "/shared", "rw"), "systrap");
    let file = shared.join("f");
    assert_eq!(
        shell.say("ls /shared; cat /shared/f 2>&1"),
        "cat: can't open '/shared/f': No such file or directory\n"
    );
    fs::write(&file, "one\n").expect("written");
    assert_eq!(shell.say("cat /shared/f; stat -c %s /shared/f"), "one\n4\n");
    // Grown behind one who has it open.
    assert_eq!(shell.say("exec 5</shared/f; cat <&5"), "one\n");
    fs::OpenOptions::new().append(true).open(&file).expect("there").write_all(b"two\n").expect("written");
    assert_eq!(shell.say("cat <&5; stat -L -c %s /proc/self/fd/5 /shared/f"), "two\n8\n8\n");
    // Replaced: the name leads to the new one, the descriptor to the old.
    fs::write(shared.join("g"), "new\n").expect("written");
    fs::rename(shared.join("g"), &file).expect("renamed");
    assert_eq!(shell.say("cat /shared/f; stat -L -c %h /proc/self/fd/5; ls /shared"), "new\n0\nf\n");
    // A directory moved away under one who is in it.
    fs::create_dir_all(shared.join("d/e")).expect("made");
    assert_eq!(shell.say("cd /shared/d/e && pwd"), "/shared/d/e\n");
    fs::rename(shared.join("d"), shared.join("z")).expect("renamed");
    fs::write(shared.join("z/e/in"), "in\n").expect("written");
    assert_eq!(
        shell.say("cat in; ls -d /shared/d 2>&1; cat /shared/z/e/in; cd /"),
        "in\nls: /shared/d: No such file or directory\nin\n"
    );
    fs::remove_dir_all(shared.join("z")).expect("removed");
    assert_eq!(shell.say("ls /shared"), "f\n");
    // A mode, an owner, a link, a hole.
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o604)).expect("chmod");
    fs::hard_link(&file, shared.join("h")).expect("linked");
    assert_eq!(shell.say("stat -c '%a %h' /shared/f"), "604 2\n");
    std::os::unix::fs::symlink("h", shared.join("s")).expect("linked");
    assert_eq!(shell.say("cat /shared/s"), "new\n");
    fs::remove_file(shared.join("s")).expect("removed");
    std::os::unix::fs::symlink("nothing", shared.join("s")).expect("linked");
    assert_eq!(shell.say("readlink /shared/s; cat /shared/s 2>/dev/null || echo none"), "nothing\nnone\n");
}

/// A kernel overlayfs over a root that all tests share, as engines give.
struct Layered(PathBuf);

impl Layered {
    /// Over `lower`, in a bundle's folder.
    fn over(lower: &Path, dir: &Path) -> Layered {
        for name in ["upper", "work", "rootfs"] {
            fs::create_dir_all(dir.join(name)).expect("a folder");
        }
        let root = dir.join("rootfs");
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.display(),
            dir.join("upper").display(),
            dir.join("work").display()
        );
        let status =
            Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(&root).status();
        assert!(status.is_ok_and(|status| status.success()), "the host's overlayfs");
        Layered(root)
    }
}

impl Drop for Layered {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

const ON_OVERLAY: &str = r#"set -e
fail() { echo "line $1"; exit 1; }
# Copied up while others hold it open, by its other name, and under a move.
exec 5</etc/debian_version
before=$(cat /etc/debian_version)
echo more >> /etc/debian_version
[ "$(cat <&5)" = "$before" ] || [ "$(cat /proc/self/fd/5 | head -1)" = "$before" ] || fail 6
[ "$(tail -1 /etc/debian_version)" = more ] || fail 7
chmod 600 /etc/debian_version; [ "$(stat -c %a /etc/debian_version)" = 600 ] || fail 8
mv /etc/debian_version /etc/moved; mv /etc/moved /etc/debian_version
ln /etc/debian_version /etc/other; echo last >> /etc/other; [ "$(tail -1 /etc/debian_version)" = last ] || fail 10
rm /etc/debian_version; [ "$(tail -1 /etc/other)" = last ] || fail 11
echo anew > /etc/debian_version; [ "$(cat /etc/debian_version)" = anew ] || fail 12
# A directory of the lower layer, changed, moved within its parent as far as the host allows, emptied and removed.
cp -a /usr/share/perl5 /root/copy; rm -r /usr/share/perl5; [ ! -e /usr/share/perl5 ] || fail 14
mkdir /usr/share/perl5; [ -z "$(ls -A /usr/share/perl5)" ] || fail 15
cp -a /root/copy/. /usr/share/perl5/; diff -r --no-dereference /root/copy /usr/share/perl5 || fail 16
mv /root/copy /root/copy2; [ -d /root/copy2/Debconf ] || [ -n "$(ls /root/copy2)" ] || fail 17
# Unlinked while open.
python3 - <<'P'
import os
f = open("/etc/hostname", "w+"); f.write("kept"); f.flush()
os.unlink("/etc/hostname")
assert os.fstat(f.fileno()).st_nlink == 0
f.seek(0); assert f.read() == "kept"
open("/etc/hostname", "w").write("new")
f.seek(0); assert f.read() == "kept"
P
tar -C /usr/share -cf /root/doc.tar doc; mkdir /root/x; tar -C /root/x -xf /root/doc.tar; diff -r --no-dereference /usr/share/doc /root/x/doc || fail 27
cd /root/x; git init -q .; git -c core.fsync=none add . ; git -c user.name=n -c user.email=e commit -qm x; git fsck --no-progress; [ -z "$(git status --short)" ] || fail 28
git mv doc moved; git -c user.name=n -c user.email=e commit -qm y; [ -z "$(git status --short)" ] || fail 29
cd /; rm -r /root/x
echo done
"#;

fn on_overlay(platform: &str) {
    let mut bundle = Bundle::new(rootfs::debian(), &["/bin/bash", "-c", ON_OVERLAY]);
    let layered = Layered::over(rootfs::debian(), bundle.dir());
    set(&mut bundle, "/root/path", json!(layered.0));
    set(&mut bundle, "/annotations", json!({}));
    let done = command::run(&mut bundle.run(platform), LIMIT);
    assert!(done.stdout.ends_with("done\n"), "{platform}: {}\n{}", done.stdout, done.stderr);
    // It went to the upper layer.
    let version = fs::read_to_string(bundle.dir().join("upper/etc/debian_version")).expect("copied up");
    assert_eq!(version, "anew\n");
}

#[test]
fn a_root_on_the_kernels_overlayfs() {
    on_overlay("systrap");
}

#[test]
fn a_root_on_the_kernels_overlayfs_by_ptrace() {
    on_overlay("ptrace");
}

const FIRST: &str = r"
import fcntl, mmap, os, socket, struct
os.chdir('/vol')
lock = open('lock', 'w'); fcntl.flock(lock, fcntl.LOCK_EX)
record = open('record', 'w'); fcntl.lockf(record, fcntl.LOCK_EX, 10, 0)
ofd = open('ofd', 'w'); fcntl.fcntl(ofd, 37, struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, 0, 5, 0))
with open('map', 'wb') as f: f.truncate(4096)
m = mmap.mmap(os.open('map', os.O_RDWR), 4096)
os.mkfifo('fifo')
s = socket.socket(socket.AF_UNIX); s.bind('sock'); s.listen(1)
open('ready', 'w').close()
c, _ = s.accept()
assert c.recv(9) == b'hello'
assert m[:3] == b'two', m[:3]
m[3:8] = b'three'
c.sendall(b'mapped')
assert c.recv(9) == b'seen'
assert os.stat('grown').st_size == 7
with open('fifo') as f: assert f.read() == 'through'
print('first done', flush=True)
os.read(0, 1)
";
const SECOND: &str = r"
import fcntl, mmap, os, socket, struct, time
os.chdir('/vol')
while not os.path.exists('ready'): time.sleep(0.01)
def refused(call):
    try: call()
    except OSError as e: return e.errno in (11, 13)
    return False
assert refused(lambda: fcntl.flock(open('lock'), fcntl.LOCK_EX | fcntl.LOCK_NB)), 'flock'
assert refused(lambda: fcntl.lockf(open('record', 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 3)), 'posix'
assert refused(lambda: fcntl.fcntl(open('ofd', 'r+'), 37, struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, 2, 1, 0))), 'ofd'
m = mmap.mmap(os.open('map', os.O_RDWR), 4096)
m[:3] = b'two'
c = socket.socket(socket.AF_UNIX); c.connect('sock')
c.sendall(b'hello')
assert c.recv(9) == b'mapped'
assert m[3:8] == b'three'
with open('grown', 'w') as f: f.write('seven..')
c.sendall(b'seen')
with open('fifo', 'w') as f: f.write('through')
print('second done', flush=True)
";

#[test]
fn containers_of_a_pod_share_a_volume() {
    let mut first = Bundle::new(rootfs::debian(), &["/usr/bin/python3", "-c", FIRST]);
    let mut second = Bundle::new(rootfs::debian(), &["/usr/bin/python3", "-c", SECOND]);
    let (volume, sandbox) = (first.dir().join("vol"), first.id().to_owned());
    fs::create_dir(&volume).expect("a folder");
    let overlay = "io.gvisor-rs.overlay2";
    let kind = "io.kubernetes.cri.container-type";
    let id = "io.kubernetes.cri.sandbox-id";
    set(&mut first, "/annotations", json!({kind: "sandbox", id: sandbox, overlay: "root:memory"}));
    set(&mut second, "/annotations", json!({kind: "container", id: sandbox, overlay: "root:memory"}));
    let (first, second) = (first.bind(&volume, "/vol", "rw"), second.bind(&volume, "/vol", "rw"));
    let mut running =
        first.run("systrap").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("runsc");
    second.write();
    // Both under one --root, or they would not find each other; joined once the first is there.
    let ready = volume.join("ready");
    let deadline = std::time::Instant::now() + LIMIT;
    while !ready.exists() && std::time::Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut join = first.runsc("systrap", "run");
    join.arg("--bundle").arg(second.dir()).arg(second.id());
    let done = command::run(&mut join, LIMIT).expect_ok("second");
    assert_eq!(done.stdout, "second done\n");
    // Its end is that of the pod: not before the second has ended.
    drop(running.stdin.take());
    let done = running.wait_with_output().expect("the first");
    assert_eq!(String::from_utf8_lossy(&done.stdout), "first done\n");
}
