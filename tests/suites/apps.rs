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

#[test]
fn tar_roundtrip() {
    script(
        "cd /tmp; tar -C /usr/lib -cf a.tar python3.11; mkdir out; tar -C out -xf a.tar
         a=$(cd /usr/lib && find python3.11 -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum)
         b=$(cd out && find python3.11 -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum)
         test \"$a\" = \"$b\"; echo identical",
        "identical",
    );
}

#[test]
fn sort_through_pipes() {
    script(
        "seq 1 1500000 | awk '{print ($1*7919)%1000003, $1}' | sort -n | tail -1 | cut -d' ' -f1",
        "1000002",
    );
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
