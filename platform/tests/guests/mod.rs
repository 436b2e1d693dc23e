//! Hand-assembled guests of the systrap tests.

core::arch::global_asm!(
    r#"
    .pushsection .rodata.guest, "a", @progbits
    .balign 4096
    .globl guest_start
guest_start:
    // 0x00: a call with every argument, then a tight loop of getpid
    mov rdi, 1
    mov rsi, 2
    mov rdx, 3
    mov r10, 4
    mov r8, 5
    mov r9, 6
    mov eax, 500
    syscall
    mov rbx, rax
1:  mov eax, 39
    syscall
    jmp 1b
    .balign 64
    .globl guest_fault
guest_fault:
    mov rax, [rdi]
    mov [rsi], rax
    mov eax, 39
    syscall
    jmp rdx
    .balign 64
    .globl guest_spin
guest_spin:
    inc rax
    jmp guest_spin
    .balign 64
    .globl guest_vector
guest_vector:
    // rdi: 64 bytes to load; rsi: where they go after a call
    vmovdqu64 zmm17, [rdi]
    movups xmm3, [rdi + 16]
    mov eax, 39
    syscall
    vmovdqu64 [rsi], zmm17
    movups [rsi + 64], xmm3
    mov eax, 39
    syscall
    ud2
    .balign 64
    .globl guest_odd
guest_odd:
    int 0x80
    mov rbx, rax
    mov eax, 0x40000027
    syscall
    mov rbp, rax
    mov eax, 500
    syscall
    xor ecx, ecx
    mov eax, 1
    cdq
    div ecx
    int3
    hlt
    .balign 64
    .globl guest_bases
guest_bases:
    wrfsbase rdi
    wrgsbase rsi
    mov eax, 500
    syscall
    rdfsbase r12
    rdgsbase r13
    mov eax, 500
    syscall
    ud2
    .balign 64
    .globl guest_clone
guest_clone:
    mov eax, 56
    syscall
    mov rbx, rax
    mov eax, 500
    syscall
    ud2
    .balign 64
    .globl guest_touch
guest_touch:
    mov byte ptr [rdi], 1
    mov eax, 500
    syscall
    jmp guest_touch
    .balign 64
    .globl guest_mixed
guest_mixed:
    // Both patterns, with flags, stack and registers that must survive. rbx counts; ud2 on any damage.
    mov qword ptr [rsp - 8], 0x1234
    mov qword ptr [rsp - 128], 0x5678
    mov rdi, 11
    mov rsi, 12
    mov rdx, 13
    mov r10, 14
    mov r8, 15
    mov r9, 16
    movq xmm5, rbx
    stc
    mov eax, 39
    syscall
    jnc 9f
    cmp rax, rbx
    jne 9f
    movq rcx, xmm5
    cmp rcx, rbx
    jne 9f
    mov eax, 1000
    cmp eax, 1000
    jne 9f
    xor eax, eax
    syscall
    cmp rax, -4096
    ja 9f
    cmp rax, rbx
    jne 9f
    cmp rdi, 11
    jne 9f
    cmp rsi, 12
    jne 9f
    cmp rdx, 13
    jne 9f
    cmp r10, 14
    jne 9f
    cmp r8, 15
    jne 9f
    cmp r9, 16
    jne 9f
    cmp qword ptr [rsp - 8], 0x1234
    jne 9f
    cmp qword ptr [rsp - 128], 0x5678
    jne 9f
    inc rbx
    jmp guest_mixed
9:  ud2
    .balign 64
    .globl guest_attack
guest_attack:
    // any call, as the stub makes it
    mov r9d, 0x67737472
    syscall
    mov rbx, rax
    mov eax, 500
    syscall
    jmp guest_attack
    .balign 64
    .globl guest_deaf
guest_deaf:
    // a forged frame that blocks every signal: return through it
    mov r9d, 0x67737472
    mov eax, 15
    syscall
    ud2
    .globl guest_end
guest_end:
    .popsection
    "#
);

unsafe extern "C" {
    pub(crate) static guest_start: u8;
    pub(crate) static guest_fault: u8;
    pub(crate) static guest_spin: u8;
    pub(crate) static guest_vector: u8;
    pub(crate) static guest_odd: u8;
    pub(crate) static guest_bases: u8;
    pub(crate) static guest_clone: u8;
    pub(crate) static guest_touch: u8;
    pub(crate) static guest_mixed: u8;
    pub(crate) static guest_attack: u8;
    pub(crate) static guest_deaf: u8;
    pub(crate) static guest_end: u8;
}
