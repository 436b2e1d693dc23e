//! What a server cannot do to the kernel, and options of mounts.

use super::connection::Connection;
use super::fs::Options;
use super::message::Put;
use abi::{Errno, SysResult};

fn answer(conn: &Connection, error: i32, unique: u64, body: &[u8]) -> SysResult<()> {
    let len = u32::try_from(16 + body.len()).unwrap();
    conn.reply(&Put::default().u32(len).u32(error.cast_unsigned()).u64(unique).bytes(body).0)
}

#[test]
fn options_are_checked() {
    let options =
        Options::parse(b"fd=3,rootmode=40000,user_id=7,group_id=8,allow_other,max_read=4096").unwrap();
    assert_eq!((options.fd, options.user_id, options.group_id), (3, 7, 8));
    assert!(options.allow_other && !options.default_permissions);
    for bad in
        ["", "fd=3", "fd=x,rootmode=40000,user_id=0,group_id=0", "fd=3,rootmode=100000,user_id=0,group_id=0"]
    {
        assert_eq!(Options::parse(bad.as_bytes()), Err(Errno::EINVAL), "{bad}");
    }
}

#[test]
fn replies_that_nobody_asked_for() {
    let conn = Connection::start().unwrap();
    assert_eq!(conn.next(20), Err(Errno::EAGAIN), "a request that does not fit is answered with an error");
    let conn = Connection::start().unwrap();
    let hello = conn.next(8192).unwrap();
    let unique = u64::from_ne_bytes(hello[8..16].try_into().unwrap());
    assert_eq!(conn.reply(b"short"), Err(Errno::EINVAL));
    assert_eq!(answer(&conn, 5, unique, &[]), Err(Errno::EINVAL));
    assert_eq!(answer(&conn, -5000, unique, &[]), Err(Errno::EINVAL));
    assert_eq!(answer(&conn, 0, unique + 2, &[]), Err(Errno::ENOENT));
    let wrong = Put::default().u32(6).u32(0).u64(0).u64(0);
    assert_eq!(answer(&conn, 0, unique, &wrong.0), Ok(()));
    assert_eq!(conn.next(8192), Err(Errno::ENODEV), "another protocol ends the conversation");
}
