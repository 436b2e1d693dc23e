//! UNSAFE: code that lives in guest processes, and where it lives.
//!
//! Every stub process holds, besides the guest's own mappings:
//!
//! * at [`TEXT`] the stub's code (sealed, never writable by anybody), and behind it the seccomp programs;
//! * at [`CONTROL`] pages that only the sentry can write: the lists of host calls that helper and mapper run;
//! * at [`SCRATCH`] one page for what the host insists on writing (control messages); nothing is read back;
//! * from [`AREAS`] one area per guest thread: shared page, trampoline stack and alternate signal stack;
//! * the host's vdso.
//!
//! The helper thread and the mapper use registers and the control pages only: guest threads share their address
//! space and are hostile. They block every signal, so whatever breaks under them ends the process.

pub(crate) mod filter;
pub(crate) mod layout;

use layout::{
    AREA_CALL, AREA_LOCAL, AREA_SIZE, AREA_STATE, AREAS, CALL, CONTROL, LIST, LOW, LOW_END, MAP_LIST,
    SECOND_LIST, SPINS, SWITCH, TASK_END,
};

core::arch::global_asm!(
    r#"
    .pushsection .rodata.systrap_stub, "a", @progbits
    .balign 64
    .globl systrap_stub_start
systrap_stub_start:

    // The template drops everything it inherited. rbx, rbp: the vdso's range.
    .globl systrap_stub_template
systrap_stub_template:
    xor edi, edi
    mov esi, {low}
    mov eax, 11
    syscall
    mov edi, {low_end}
    mov rsi, rbx
    sub rsi, rdi
    mov eax, 11
    syscall
    mov rdi, rbp
    movabs rsi, {task_end}
    sub rsi, rdi
    mov eax, 11
    syscall
    xor eax, eax
    wrfsbase rax
    wrgsbase rax
    mov rsp, rax

    // The helper: wait for one or two bytes on the socket, run that list, report 1 + errno as a length.
helper_loop:
    xor r14d, r14d
    mov edi, 2
    xor esi, esi
    xor edx, edx
    mov r10d, 0x20
    xor r8d, r8d
    xor r9d, r9d
    mov eax, 45
    syscall
    mov r12d, {list}
    cmp rax, 1
    je list_next
    mov r12d, {second_list}
    cmp rax, 2
    jne helper_gone
    // r14: 0 the helper, 1 the child of a clone, 2 the mapper.
list_next:
    mov r13d, [r12 + 4]
    test r13d, r13d
    jz helper_loop
    cmp r13d, 2
    je list_done
    mov rdi, [r12 + 8]
    cmp r13d, 3
    je thread_enter
    cmp r13d, 8
    je mapper_enter
    mov eax, [r12]
    mov rsi, [r12 + 16]
    mov rdx, [r12 + 24]
    mov r10, [r12 + 32]
    mov r8, [r12 + 40]
    mov r9, [r12 + 48]
    syscall
    cmp r13d, 4
    je list_clone
    cmp rax, -4095
    jae list_error
list_advance:
    add r12, 64
    jmp list_next
list_clone:
    test rax, rax
    js list_report
    jnz list_advance
    mov r12, [r12 + 56]
    mov r14d, 1
    jmp list_next
list_error:
    cmp r13d, 7
    je list_unmap
    cmp r13d, 5
    je list_advance
    cmp r13d, 6
    jne list_report
    cmp rax, -9
    jne list_report
    mov eax, 24
    syscall
    jmp list_next
list_unmap:
    mov eax, 11
    syscall
    jmp list_advance
list_report:
    cmp r14d, 1
    je helper_gone
    neg rax
    mov rdi, rax
    cmp r14d, 2
    je mapper_wait
    lea rdx, [rax + 1]
    jmp list_send
list_done:
    xor edi, edi
    cmp r14d, 2
    je mapper_wait
    mov edx, 1
list_send:
    mov edi, 2
    mov esi, {control}
    mov r10d, 0x4000
    xor r8d, r8d
    xor r9d, r9d
    mov eax, 44
    syscall
    jmp helper_loop
helper_gone:
    xor edi, edi
    mov eax, 231
    syscall
    ud2

    // The mapper: reports an errno or zero by a notified call, whose reply says to run its list.
mapper_enter:
    mov r14d, 2
    xor edi, edi
mapper_wait:
    mov eax, {switch}
    syscall
    .globl systrap_stub_mapper
systrap_stub_mapper:
    mov r12d, {map_list}
    cmp rax, 1
    je list_next
    jmp helper_gone

    // A fresh guest thread. rdi: its area. The sentry has put a signal frame there.
thread_enter:
    mov rbx, rdi
    xor edi, edi
    xor esi, esi
    xor edx, edx
    jmp thread_switch

    // Handler of every signal: rdi number, rsi siginfo, rdx ucontext, on the area's alternate stack.
    .balign 16
    .globl systrap_stub_handler
systrap_stub_handler:
    mov rbx, rsp
    and rbx, -{area_size}
    rdfsbase rax
    mov [rbx], rax
    rdgsbase rax
    mov [rbx + 8], rax
thread_switch:
    mov eax, {switch}
    syscall
    .globl systrap_stub_switched
systrap_stub_switched:
    // Whoever came here came by a reply of the sentry: the area's address, or zero to exit. No other
    // register counts, a guest may have jumped to the call above with registers of its choice.
    test rax, rax
    jle thread_exit
    mov rbx, rax
    mov rax, [rbx]
    wrfsbase rax
    mov rax, [rbx + 8]
    wrgsbase rax
    mov rsp, [rbx + 16]
    .globl systrap_stub_restorer
systrap_stub_restorer:
    mov r9d, {stub_call}
    mov eax, 15
    syscall
    ud2
thread_exit:
    mov r9d, {stub_call}
    xor edi, edi
    mov eax, 60
    syscall
    ud2

    // Sites of calls with constant answers come here, each call to its own 64 bytes.
    .balign 64
    .globl systrap_stub_local
systrap_stub_local:
    .irp index, 1, 2, 3, 4, 5, 6
    .balign 64
    rdgsbase rcx
    rorx rcx, rcx, 32
    mov ecx, ecx
    lea ecx, [rcx - {areas_high}]
    jrcxz 1f
2:  jmp systrap_stub_site
1:  mov rcx, gs:[{local}]
    jrcxz 2b
    mov eax, gs:[{local} + 8 * \index]
    lea r11, [r11 + 10]
    jmp r11
    .endr

    // A patched call site comes here through its own code: rax holds the number, r11 points to the site's
    // return address, behind which the plain call stands. Only rcx and r11 may change, so flags are neither
    // used nor set; the stack is not touched, and no vector register is.
    .balign 64
    .globl systrap_stub_site
systrap_stub_site:
    rdgsbase rcx
    rorx rcx, rcx, 32
    mov ecx, ecx
    lea ecx, [rcx - {areas_high}]
    jrcxz 1f
    lea rcx, [r11 + 8]
    jmp rcx
1:  mov gs:[{call}], rax
    mov gs:[{call} + 8], rdi
    mov gs:[{call} + 16], rsi
    mov gs:[{call} + 24], rdx
    mov gs:[{call} + 32], r10
    mov gs:[{call} + 40], r8
    mov gs:[{call} + 48], r9
    mov gs:[{call} + 56], r11
    rdpid rcx
    mov gs:[{call} + 64], rcx
    mov ecx, {posted}
    xchg gs:[{state}], ecx
    .globl systrap_stub_posted
systrap_stub_posted:
    jrcxz 2f
    jmp 4f
2:  mov eax, {spins}
3:  mov ecx, gs:[{state}]
    lea ecx, [rcx - {posted}]
    jrcxz 5f
    jmp 7f
5:  pause
    lea eax, [rax - 1]
    mov ecx, eax
    jrcxz 4f
    jmp 3b
4:  mov eax, {switch}
    syscall
    .globl systrap_stub_parked
systrap_stub_parked:
    // The sentry's reply is the area's address; anything else says that it is gone.
    rdgsbase rcx
    not rcx
    lea rcx, [rcx + rax + 1]
    jrcxz 6f
    jmp thread_exit
6:  mov ecx, gs:[{state}]
    lea ecx, [rcx - {posted}]
    jrcxz 4b
7:  mov rax, gs:[{call}]
    mov r11, gs:[{call} + 56]
    lea r11, [r11 + 10]
    jmp r11
    .globl systrap_stub_site_end
systrap_stub_site_end:

    .globl systrap_stub_end
systrap_stub_end:
    .popsection
    "#,
    low = const LOW,
    low_end = const LOW_END,
    task_end = const TASK_END,
    list = const CONTROL + LIST,
    second_list = const CONTROL + SECOND_LIST,
    map_list = const CONTROL + MAP_LIST,
    control = const CONTROL,
    area_size = const AREA_SIZE,
    switch = const SWITCH,
    stub_call = const filter::STUB_CALL,
    areas_high = const AREAS >> 32,
    call = const AREA_CALL,
    local = const AREA_LOCAL,
    state = const AREA_STATE,
    posted = const CALL,
    spins = const SPINS,
);

unsafe extern "C" {
    static systrap_stub_start: u8;
    static systrap_stub_end: u8;
    static systrap_stub_template: u8;
    static systrap_stub_mapper: u8;
    static systrap_stub_handler: u8;
    static systrap_stub_switched: u8;
    static systrap_stub_restorer: u8;
    static systrap_stub_local: u8;
    static systrap_stub_site: u8;
    static systrap_stub_posted: u8;
    static systrap_stub_parked: u8;
    static systrap_stub_site_end: u8;
}

/// The stub's machine code.
pub(crate) fn code() -> &'static [u8] {
    let start = &raw const systrap_stub_start;
    let len = (&raw const systrap_stub_end).addr() - start.addr();
    // SAFETY: both symbols bound one read-only object of this program.
    unsafe { std::slice::from_raw_parts(start, len) }
}

/// Where a symbol of the code stands in every stub.
fn placed(symbol: *const u8) -> u64 {
    let offset = symbol.addr() - (&raw const systrap_stub_start).addr();
    layout::TEXT + u64::try_from(offset).unwrap_or(0)
}

/// Entry of the template process.
pub(crate) fn template_entry() -> u64 {
    placed(&raw const systrap_stub_template)
}
/// Address behind the mapper's switching call.
pub(crate) fn mapper() -> u64 {
    placed(&raw const systrap_stub_mapper)
}
/// The signal handler.
pub(crate) fn handler() -> u64 {
    placed(&raw const systrap_stub_handler)
}
/// Address behind the switching call of the handler.
pub(crate) fn switched() -> u64 {
    placed(&raw const systrap_stub_switched)
}
/// The restorer that rt_sigaction wants.
pub(crate) fn restorer() -> u64 {
    placed(&raw const systrap_stub_restorer)
}
/// Where the code of sites of the n-th of [`layout::LOCAL_CALLS`] goes on.
pub(crate) fn local(index: u64) -> u64 {
    placed(&raw const systrap_stub_local) + index * layout::LOCAL_SIZE
}
/// Where the code of other call sites goes on.
pub(crate) fn site() -> u64 {
    placed(&raw const systrap_stub_site)
}
/// Behind the instruction with which a call site posts its call.
pub(crate) fn posted() -> u64 {
    placed(&raw const systrap_stub_posted)
}
/// Behind the switching call of a call site.
pub(crate) fn parked() -> u64 {
    placed(&raw const systrap_stub_parked)
}
/// End of what call sites share.
pub(crate) fn site_end() -> u64 {
    placed(&raw const systrap_stub_site_end)
}
