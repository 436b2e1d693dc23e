use super::*;

fn frames() -> Arc<Frames> {
    Frames::new(Arc::new(MemoryFile::create(1 << 30).unwrap()))
}

fn all_zero(frames: &Frames, range: FrameRange) -> bool {
    let mut buf = vec![1; index(range.len)];
    frames.memory().read(range.offset, &mut buf).unwrap();
    buf.iter().all(|b| *b == 0)
}

fn fill(frames: &Frames, range: FrameRange) {
    frames.memory().write(range.offset, &vec![0xaa; index(range.len)]).unwrap();
}

#[test]
fn small_ones_share_a_chunk_and_come_back_zeroed() {
    let frames = frames();
    let a = frames.alloc(4096).unwrap();
    let b = frames.alloc(5000).unwrap();
    assert_eq!(b.len, 8192);
    assert_eq!(a.offset / HUGE_PAGE, b.offset / HUGE_PAGE);
    fill(&frames, a);
    frames.release(a);
    let c = frames.alloc(4096).unwrap();
    assert_eq!(c.offset, a.offset);
    assert!(all_zero(&frames, c));
    frames.release(b);
    frames.release(c);
    assert_eq!(frames.allocated(), 0);
    frames.trim();
    assert!(matches!(frames.state.lock().chunks[0], Chunk::Free));
}

#[test]
fn big_ones_are_aligned_and_lend_their_tail() {
    let frames = frames();
    let small = frames.alloc(4096).unwrap();
    let big = frames.alloc(5 << 20).unwrap();
    assert_eq!(big.offset % HUGE_PAGE, 0);
    let fits = frames.alloc(1 << 20).unwrap();
    assert_eq!(frames.allocated(), 4096 + (6 << 20));
    fill(&frames, big);
    frames.release(big);
    let again = frames.alloc(4 << 20).unwrap();
    assert_eq!(again.offset, big.offset);
    assert!(all_zero(&frames, again));
    for range in [small, fits, again] {
        frames.release(range);
    }
    frames.trim();
    assert_eq!(frames.resident(), 0);
}

#[test]
fn sharing_and_partial_release() {
    let frames = frames();
    let range = frames.alloc(3 << 20).unwrap();
    frames.share(range);
    assert_eq!(frames.exclusive_run(range), (false, 3 << 20));
    let middle = FrameRange { offset: range.offset + (1 << 20), len: 1 << 20 };
    frames.release(middle);
    assert_eq!(frames.exclusive_run(range), (false, 1 << 20));
    assert_eq!(frames.exclusive_run(FrameRange { offset: middle.offset, len: 2 << 20 }), (true, 1 << 20));
    frames.release(middle);
    assert_eq!(frames.allocated(), 2 << 20);
    let page = frames.alloc(8192).unwrap();
    assert_eq!(frames.allocated(), (2 << 20) + 8192);
    frames.release(page);
    frames.release(FrameRange { offset: range.offset, len: 1 << 20 });
    frames.release(FrameRange { offset: range.offset, len: 1 << 20 });
    let last = FrameRange { offset: range.offset + (2 << 20), len: 1 << 20 };
    frames.release(last);
    frames.release(last);
    assert_eq!(frames.allocated(), 0);
}

#[test]
fn growing_in_place() {
    let frames = frames();
    let a = frames.alloc(8192).unwrap();
    let next = FrameRange { offset: a.offset + a.len, len: 16384 };
    assert!(frames.alloc_at(next));
    assert!(!frames.alloc_at(next));
    frames.release(a);
    frames.release(next);
    assert_eq!(frames.allocated(), 0);
}

#[test]
fn limit_is_enomem() {
    let frames = frames();
    frames.set_limit(1 << 20);
    assert_eq!(frames.alloc(2 << 20), Err(Errno::ENOMEM));
    let a = frames.alloc(1 << 20).unwrap();
    assert_eq!(frames.alloc(4096), Err(Errno::ENOMEM));
    frames.release(a);
    assert!(frames.alloc(4096).is_ok());
}

#[test]
fn dirty_pages_go_back_beyond_the_bound() {
    let frames = frames();
    let ranges: Vec<_> = (0..2000).map(|_| frames.alloc(4096).unwrap()).collect();
    for range in &ranges {
        fill(&frames, *range);
    }
    for range in ranges.iter().step_by(2) {
        frames.release(*range);
    }
    assert!(frames.state.lock().dirty_pages <= DIRTY_PAGES_KEPT);
    for range in ranges.iter().skip(1).step_by(2) {
        frames.release(*range);
    }
    let big = frames.alloc(1 << 20).unwrap();
    assert!(all_zero(&frames, big));
    assert_eq!(frames.allocated(), 1 << 20);
    frames.release(big);
}

#[test]
fn random_use_keeps_contents_apart() {
    let frames = frames();
    let mut seed = 12345u64;
    let mut next = move || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        seed >> 33
    };
    let mut live: Vec<(FrameRange, u64)> = Vec::new();
    for round in 0..3000u64 {
        if next() % 2 == 0 || live.is_empty() {
            let range = frames.alloc((next() % 700 + 1) * if next() % 4 == 0 { 4096 } else { 128 }).unwrap();
            assert!(all_zero(&frames, range), "{round}");
            frames.memory().write(range.offset, &round.to_le_bytes()).unwrap();
            frames.memory().write(range.offset + range.len - 8, &round.to_le_bytes()).unwrap();
            live.push((range, round));
        } else {
            let at = index(next()) % live.len();
            let (range, tag) = live.swap_remove(at);
            let mut word = [0; 8];
            for place in [range.offset, range.offset + range.len - 8] {
                frames.memory().read(place, &mut word).unwrap();
                assert_eq!(u64::from_le_bytes(word), tag);
            }
            frames.release(range);
        }
    }
    for (range, _) in live {
        frames.release(range);
    }
    assert_eq!(frames.allocated(), 0);
}

#[test]
fn a_busy_sandbox_gets_huge_pages() {
    let frames = frames();
    let first = frames.alloc(256 << 10).unwrap();
    let pages: Vec<_> = (0..600).map(|_| frames.alloc(4096).unwrap()).collect();
    let last = pages.last().unwrap().offset;
    let chunk = last - last % HUGE_PAGE;
    assert!(frames.memory().wants_huge(chunk, HUGE_PAGE));
    for range in &pages {
        fill(&frames, *range);
    }
    let kept = frames.resident();
    for range in &pages {
        frames.release(*range);
    }
    // Kept for the next ones, which are zero all the same.
    assert_eq!(frames.resident(), kept);
    let again = frames.alloc(300 * 4096).unwrap();
    assert!(all_zero(&frames, again));
    frames.release(again);
    frames.release(first);
    frames.trim();
    assert_eq!(frames.resident(), 0);
    assert!(!frames.memory().wants_huge(chunk, HUGE_PAGE));
}
