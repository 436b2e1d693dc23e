//! Real programs of a Debian 12 bundle, on each platform.

use std::time::Duration;
use tests::bundle::Bundle;
use tests::{PLATFORMS, command, rootfs};

const LIMIT: Duration = Duration::from_secs(300);

/// Runs a shell script in a fresh Debian sandbox on every platform; it must end with status 0 and print `want`.
#[track_caller]
fn script(text: &str, want: &str) {
    for platform in PLATFORMS {
        let bundle = Bundle::new(rootfs::debian(), &["/bin/bash", "-euo", "pipefail", "-c", text]);
        let done = command::run(&mut bundle.run(platform), LIMIT);
        assert!(
            done.code() == 0 && done.stdout.contains(want),
            "{platform}: status {}\nstdout: {}\nstderr: {}",
            done.code(),
            done.stdout,
            done.stderr
        );
    }
}

#[test]
fn shell_pipelines() {
    script(
        "seq 1 1000 | grep 7 | sort -rn | head -3 | tr '\\n' ' '; echo $(( $(ls /usr/bin | wc -l) > 100 ))",
        "997 987 979 1",
    );
}

#[test]
fn gcc_compiles_and_runs() {
    script(
        "cd /tmp; printf '#include <stdio.h>\\nint main(){puts(\"compiled\");return 0;}' > a.c; gcc -O2 -o a a.c; ./a",
        "compiled",
    );
}

#[test]
fn make_j4() {
    script(
        "mkdir /tmp/m; cd /tmp/m; for i in $(seq 1 20); do echo \"int f$i(void){return $i;}\" > f$i.c; done
         printf 'OBJS=$(patsubst %%.c,%%.o,$(wildcard *.c))\\nall: lib.a\\nlib.a: $(OBJS)\\n\\tar rcs $@ $^\\n' > Makefile
         make -s -j4; ar t lib.a | wc -l",
        "20",
    );
}

#[test]
fn python_threads_subprocesses_asyncio_sqlite() {
    script(
        r#"cat > /tmp/t.py <<'EOF'
import threading, subprocess, asyncio, sqlite3, os, sys
n=[0]; lock=threading.Lock()
def work():
    for _ in range(1000):
        with lock: n[0]+=1
ts=[threading.Thread(target=work) for _ in range(8)]
[t.start() for t in ts]; [t.join() for t in ts]
assert n[0]==8000
assert subprocess.run(['echo','hi'],capture_output=True).stdout==b'hi\n'
async def main():
    async def echo(r,w):
        w.write(await r.readline()); await w.drain(); w.close()
    s=await asyncio.start_server(echo,'127.0.0.1',0)
    port=s.sockets[0].getsockname()[1]
    async def one(i):
        r,w=await asyncio.open_connection('127.0.0.1',port)
        w.write(b'line %d\n'%i); await w.drain()
        assert await r.readline()==b'line %d\n'%i
        w.close()
    await asyncio.gather(*[one(i) for i in range(20)])
    s.close()
asyncio.run(main())
db=sqlite3.connect('/tmp/x.db')
db.execute('create table t(a)')
db.executemany('insert into t values(?)',[(i,) for i in range(1000)]); db.commit()
assert db.execute('select sum(a) from t').fetchone()[0]==499500
print('python', 'fine')
EOF
python3 /tmp/t.py"#,
        "python fine",
    );
}

#[test]
fn git_thousand_files() {
    script(
        "export HOME=/tmp; cd /tmp; git init -q r 2>/dev/null; cd r; git config user.email a@b; git config user.name n
         for i in $(seq 1 1000); do echo $i > f$i; done; git add .; git commit -qm all; git log --oneline | wc -l; git status --short | wc -l; git ls-files | wc -l",
        "1\n0\n1000",
    );
}

/// All of /usr: names, types, modes, owners, link targets, times, and the contents' checksums.
#[test]
fn tar_of_usr_and_back() {
    script(
        "mkdir /var/tmp/out; tar -C / -cf - usr | tar -C /var/tmp/out -xf -
         list() { find usr -printf '%p %y %m %U %G %l %Ts\\n' | sort | sha256sum
                  find usr -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum; }
         a=$(cd / && list); b=$(cd /var/tmp/out && list)
         test \"$a\" = \"$b\"; echo identical",
        "identical",
    );
}

#[test]
fn sort_of_100_megabytes_through_pipes() {
    script(
        "seq 1 12345679 | sort -rn -S 64M > /var/tmp/sorted; head -1 /var/tmp/sorted; wc -c < /var/tmp/sorted",
        "12345679\n100000008",
    );
}

/// A local package: unpacked, configured by its script, removed again.
#[test]
fn apt_get_installs_a_local_package() {
    script(
        "mkdir -p /tmp/p/DEBIAN /tmp/p/usr/bin; printf '#!/bin/sh\necho installed and run\n' > /tmp/p/usr/bin/greeting
         printf 'Package: greeting\nVersion: 1.0\nArchitecture: all\nMaintainer: Nobody <nobody@example.org>\nDescription: says something\n' > /tmp/p/DEBIAN/control
         printf '#!/bin/sh\necho configured > /var/lib/greeting\n' > /tmp/p/DEBIAN/postinst; chmod 755 /tmp/p/DEBIAN/postinst /tmp/p/usr/bin/greeting
         dpkg-deb --build --root-owner-group /tmp/p /tmp/greeting.deb >/dev/null; export DEBIAN_FRONTEND=noninteractive
         apt-get install -y -qq --no-install-recommends /tmp/greeting.deb >/tmp/log 2>&1 || { cat /tmp/log; exit 1; }
         greeting; cat /var/lib/greeting; apt-get remove -y -qq greeting >/dev/null 2>&1; test ! -e /usr/bin/greeting; echo removed",
        "installed and run\nconfigured\nremoved",
    );
}

/// Threads, a channel, loopback TCP, a child process and an unwound panic in one static binary.
#[test]
fn rust_static_binary() {
    const SOURCE: &str = r#"
use std::io::{Read, Write};
use std::{net, process, sync::mpsc, thread};
fn main() {
    let (sender, receiver) = mpsc::channel();
    let threads: Vec<_> = (0..8).map(|i| { let sender = sender.clone(); thread::spawn(move || sender.send(i * i).unwrap()) }).collect();
    for thread in threads { thread.join().unwrap(); }
    drop(sender);
    let sum: i32 = receiver.iter().sum();
    let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || { let mut text = String::new(); listener.accept().unwrap().0.read_to_string(&mut text).unwrap(); text });
    net::TcpStream::connect(address).unwrap().write_all(b"tcp").unwrap();
    let child = process::Command::new("echo").arg("child").output().unwrap();
    std::panic::set_hook(Box::new(|_| {}));
    let caught = std::panic::catch_unwind(|| panic!("unwound")).is_err();
    println!("{sum} {} {} {caught}", server.join().unwrap(), String::from_utf8_lossy(&child.stdout).trim());
}
"#;
    let folder = tests::target_dir().join("rust-guest");
    std::fs::create_dir_all(&folder).expect("the target folder can be made");
    let source = folder.join("main.rs");
    std::fs::write(&source, SOURCE).expect("a source");
    let mut rustc = std::process::Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.args(["--edition=2021", "-O", "-Ctarget-feature=+crt-static", "-o"]).arg(folder.join("program"));
    command::run(rustc.arg(&source), LIMIT).expect_ok("rustc");
    for platform in PLATFORMS {
        let bundle = Bundle::new(rootfs::debian(), &["/t/program"]).bind(&folder, "/t", "ro");
        let done = command::run(&mut bundle.run(platform), LIMIT).expect_ok(platform);
        assert_eq!(done.stdout, "140 tcp child true\n", "{platform}");
    }
}

#[test]
fn redis_answers() {
    script(
        "redis-server --port 7777 --save '' --daemonize yes >/dev/null; for i in $(seq 50); do redis-cli -p 7777 ping >/dev/null 2>&1 && break; sleep 0.1; done
         redis-benchmark -p 7777 -n 2000 -c 10 -q -t set,get >/dev/null; redis-cli -p 7777 set k v; redis-cli -p 7777 get k; redis-cli -p 7777 shutdown nosave || true",
        "OK\nv",
    );
}

#[test]
fn strace_follows_forks() {
    script(
        "strace -f -o /tmp/s ls / >/dev/null; grep -c execve /tmp/s; grep -q getdents64 /tmp/s; echo traced",
        "traced",
    );
}

#[test]
fn go_program() {
    script(
        "cd /tmp; export HOME=/tmp GOCACHE=/tmp/gc GOFLAGS=-mod=mod GO111MODULE=off
         printf 'package main\\nimport (\"fmt\";\"sync\")\\nfunc main(){var w sync.WaitGroup;c:=make(chan int,100);for i:=0;i<100;i++{w.Add(1);go func(){defer w.Done();c<-1}()};w.Wait();fmt.Println(\"goroutines\",len(c))}' > a.go
         go build -o a a.go; ./a",
        "goroutines 100",
    );
}
