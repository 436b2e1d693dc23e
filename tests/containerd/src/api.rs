//! The messages of the Kubernetes container runtime interface, `runtime.v1`, that the suite needs: field numbers and
//! types as in api.proto. Written out here because the published bindings want a protobuf compiler at build time.

use prost::Message;
use std::collections::HashMap;

/// Which namespace a container uses, in `NamespaceOption`.
pub mod namespace_mode {
    /// The pod's.
    pub const POD: i32 = 0;
    /// Its own.
    pub const CONTAINER: i32 = 1;
    /// The node's.
    pub const NODE: i32 = 2;
    /// That of another container.
    pub const TARGET: i32 = 3;
}

/// `SecurityProfile.ProfileType`.
pub mod seccomp_profile {
    /// The runtime service's own.
    pub const RUNTIME_DEFAULT: i32 = 0;
    /// None.
    pub const UNCONFINED: i32 = 1;
    /// A file of the node.
    pub const LOCALHOST: i32 = 2;
}

/// `ContainerState`.
pub mod container_state {
    /// Made.
    pub const CREATED: i32 = 0;
    /// Started.
    pub const RUNNING: i32 = 1;
    /// Ended.
    pub const EXITED: i32 = 2;
}

/// `PodSandboxState`.
pub mod sandbox_state {
    /// Its first container runs.
    pub const READY: i32 = 0;
    /// It has ended.
    pub const NOT_READY: i32 = 1;
}

macro_rules! messages {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field:meta])* $member:ident: $typ:ty),* $(,)? })*) => {
        $($(#[$doc])*
        #[derive(Clone, PartialEq, Message)]
        pub struct $name { $(
            #[doc = concat!("`", stringify!($member), "`.")]
            $(#[$field])* pub $member: $typ,
        )* })*
    };
}

type Labels = HashMap<String, String>;

messages! {
    /// No fields.
    Empty {}
    /// A container's or pod's id.
    ById { #[prost(string, tag = 1)] id: String }
    /// `VersionResponse`.
    VersionResponse {
        #[prost(string, tag = 1)] version: String,
        #[prost(string, tag = 2)] runtime_name: String,
        #[prost(string, tag = 3)] runtime_version: String,
    }
    /// `StatusResponse`.
    StatusResponse { #[prost(message, optional, tag = 1)] status: Option<RuntimeStatus> }
    /// `RuntimeStatus`.
    RuntimeStatus { #[prost(message, repeated, tag = 1)] conditions: Vec<RuntimeCondition> }
    /// `RuntimeCondition`.
    RuntimeCondition {
        #[prost(string, tag = 1)] kind: String,
        #[prost(bool, tag = 2)] status: bool,
        #[prost(string, tag = 4)] message: String,
    }
    /// `Int64Value`.
    Int64Value { #[prost(int64, tag = 1)] value: i64 }
    /// `UInt64Value`.
    UInt64Value { #[prost(uint64, tag = 1)] value: u64 }
    /// `NamespaceOption`.
    NamespaceOption {
        #[prost(int32, tag = 1)] network: i32,
        #[prost(int32, tag = 2)] pid: i32,
        #[prost(int32, tag = 3)] ipc: i32,
        #[prost(string, tag = 4)] target_id: String,
    }
    /// `SecurityProfile`.
    SecurityProfile {
        #[prost(int32, tag = 1)] profile_type: i32,
        #[prost(string, tag = 2)] localhost_ref: String,
    }
    /// `LinuxSandboxSecurityContext`.
    SandboxSecurity {
        #[prost(message, optional, tag = 1)] namespace_options: Option<NamespaceOption>,
        #[prost(bool, tag = 6)] privileged: bool,
        #[prost(message, optional, tag = 9)] seccomp: Option<SecurityProfile>,
    }
    /// `LinuxPodSandboxConfig`.
    SandboxLinux {
        #[prost(string, tag = 1)] cgroup_parent: String,
        #[prost(message, optional, tag = 2)] security_context: Option<SandboxSecurity>,
        #[prost(map = "string, string", tag = 3)] sysctls: Labels,
    }
    /// `PodSandboxMetadata`.
    SandboxMetadata {
        #[prost(string, tag = 1)] name: String,
        #[prost(string, tag = 2)] uid: String,
        #[prost(string, tag = 3)] namespace: String,
        #[prost(uint32, tag = 4)] attempt: u32,
    }
    /// `DNSConfig`.
    DnsConfig {
        #[prost(string, repeated, tag = 1)] servers: Vec<String>,
        #[prost(string, repeated, tag = 2)] searches: Vec<String>,
        #[prost(string, repeated, tag = 3)] options: Vec<String>,
    }
    /// `PortMapping`.
    PortMapping {
        #[prost(int32, tag = 1)] protocol: i32,
        #[prost(int32, tag = 2)] container_port: i32,
        #[prost(int32, tag = 3)] host_port: i32,
    }
    /// `PodSandboxConfig`.
    SandboxConfig {
        #[prost(message, optional, tag = 1)] metadata: Option<SandboxMetadata>,
        #[prost(string, tag = 2)] hostname: String,
        #[prost(string, tag = 3)] log_directory: String,
        #[prost(message, optional, tag = 4)] dns_config: Option<DnsConfig>,
        #[prost(message, repeated, tag = 5)] port_mappings: Vec<PortMapping>,
        #[prost(map = "string, string", tag = 6)] labels: Labels,
        #[prost(map = "string, string", tag = 7)] annotations: Labels,
        #[prost(message, optional, tag = 8)] linux: Option<SandboxLinux>,
    }
    /// `RunPodSandboxRequest`.
    RunPodSandboxRequest {
        #[prost(message, optional, tag = 1)] config: Option<SandboxConfig>,
        #[prost(string, tag = 2)] runtime_handler: String,
    }
    /// `PodSandboxStatusRequest`, `ContainerStatusRequest`.
    StatusRequest { #[prost(string, tag = 1)] id: String, #[prost(bool, tag = 2)] verbose: bool }
    /// `PodSandboxStatusResponse`.
    PodSandboxStatusResponse {
        #[prost(message, optional, tag = 1)] status: Option<PodSandboxStatus>,
        #[prost(map = "string, string", tag = 2)] info: Labels,
    }
    /// `PodSandboxStatus`.
    PodSandboxStatus {
        #[prost(string, tag = 1)] id: String,
        #[prost(int32, tag = 3)] state: i32,
        #[prost(message, optional, tag = 5)] network: Option<NetworkStatus>,
    }
    /// `PodSandboxNetworkStatus`.
    NetworkStatus { #[prost(string, tag = 1)] ip: String }
    /// `ListPodSandboxResponse`.
    ListPodSandboxResponse { #[prost(message, repeated, tag = 1)] items: Vec<PodSandbox> }
    /// `PodSandbox`.
    PodSandbox { #[prost(string, tag = 1)] id: String, #[prost(int32, tag = 3)] state: i32 }
    /// `ListContainersResponse`.
    ListContainersResponse { #[prost(message, repeated, tag = 1)] containers: Vec<Container> }
    /// `Container`.
    Container {
        #[prost(string, tag = 1)] id: String,
        #[prost(string, tag = 2)] pod_sandbox_id: String,
        #[prost(int32, tag = 6)] state: i32,
    }
    /// `ImageSpec`.
    ImageSpec { #[prost(string, tag = 1)] image: String }
    /// `ImageStatusRequest`.
    ImageStatusRequest { #[prost(message, optional, tag = 1)] image: Option<ImageSpec> }
    /// `ImageStatusResponse`.
    ImageStatusResponse { #[prost(message, optional, tag = 1)] image: Option<Image> }
    /// `Image`.
    Image { #[prost(string, tag = 1)] id: String }
    /// `KeyValue`.
    KeyValue { #[prost(string, tag = 1)] key: String, #[prost(string, tag = 2)] value: String }
    /// `Mount`.
    Mount {
        #[prost(string, tag = 1)] container_path: String,
        #[prost(string, tag = 2)] host_path: String,
        #[prost(bool, tag = 3)] readonly: bool,
        #[prost(int32, tag = 5)] propagation: i32,
    }
    /// `Device`.
    Device {
        #[prost(string, tag = 1)] container_path: String,
        #[prost(string, tag = 2)] host_path: String,
        #[prost(string, tag = 3)] permissions: String,
    }
    /// `Capability`.
    Capability {
        #[prost(string, repeated, tag = 1)] add_capabilities: Vec<String>,
        #[prost(string, repeated, tag = 2)] drop_capabilities: Vec<String>,
    }
    /// `LinuxContainerSecurityContext`.
    ContainerSecurity {
        #[prost(message, optional, tag = 1)] capabilities: Option<Capability>,
        #[prost(bool, tag = 2)] privileged: bool,
        #[prost(message, optional, tag = 3)] namespace_options: Option<NamespaceOption>,
        #[prost(message, optional, tag = 5)] run_as_user: Option<Int64Value>,
        #[prost(bool, tag = 7)] readonly_rootfs: bool,
        #[prost(int64, repeated, tag = 8)] supplemental_groups: Vec<i64>,
        #[prost(bool, tag = 11)] no_new_privs: bool,
        #[prost(message, optional, tag = 12)] run_as_group: Option<Int64Value>,
        #[prost(string, repeated, tag = 13)] masked_paths: Vec<String>,
        #[prost(string, repeated, tag = 14)] readonly_paths: Vec<String>,
        #[prost(message, optional, tag = 15)] seccomp: Option<SecurityProfile>,
    }
    /// `LinuxContainerResources`.
    Resources {
        #[prost(int64, tag = 1)] cpu_period: i64,
        #[prost(int64, tag = 2)] cpu_quota: i64,
        #[prost(int64, tag = 3)] cpu_shares: i64,
        #[prost(int64, tag = 4)] memory_limit_in_bytes: i64,
        #[prost(int64, tag = 5)] oom_score_adj: i64,
        #[prost(string, tag = 6)] cpuset_cpus: String,
        #[prost(string, tag = 7)] cpuset_mems: String,
    }
    /// `LinuxContainerConfig`.
    ContainerLinux {
        #[prost(message, optional, tag = 1)] resources: Option<Resources>,
        #[prost(message, optional, tag = 2)] security_context: Option<ContainerSecurity>,
    }
    /// `ContainerMetadata`.
    ContainerMetadata { #[prost(string, tag = 1)] name: String, #[prost(uint32, tag = 2)] attempt: u32 }
    /// `ContainerConfig`.
    ContainerConfig {
        #[prost(message, optional, tag = 1)] metadata: Option<ContainerMetadata>,
        #[prost(message, optional, tag = 2)] image: Option<ImageSpec>,
        #[prost(string, repeated, tag = 3)] command: Vec<String>,
        #[prost(string, repeated, tag = 4)] args: Vec<String>,
        #[prost(string, tag = 5)] working_dir: String,
        #[prost(message, repeated, tag = 6)] envs: Vec<KeyValue>,
        #[prost(message, repeated, tag = 7)] mounts: Vec<Mount>,
        #[prost(message, repeated, tag = 8)] devices: Vec<Device>,
        #[prost(string, tag = 11)] log_path: String,
        #[prost(bool, tag = 12)] stdin: bool,
        #[prost(bool, tag = 13)] stdin_once: bool,
        #[prost(bool, tag = 14)] tty: bool,
        #[prost(message, optional, tag = 15)] linux: Option<ContainerLinux>,
    }
    /// `CreateContainerRequest`.
    CreateContainerRequest {
        #[prost(string, tag = 1)] pod_sandbox_id: String,
        #[prost(message, optional, tag = 2)] config: Option<ContainerConfig>,
        #[prost(message, optional, tag = 3)] sandbox_config: Option<SandboxConfig>,
    }
    /// `StopContainerRequest`.
    StopContainerRequest {
        #[prost(string, tag = 1)] container_id: String,
        #[prost(int64, tag = 2)] timeout_s: i64,
    }
    /// `ContainerStatusResponse`.
    ContainerStatusResponse {
        #[prost(message, optional, tag = 1)] status: Option<ContainerStatus>,
        #[prost(map = "string, string", tag = 2)] info: Labels,
    }
    /// `ContainerStatus`.
    ContainerStatus {
        #[prost(string, tag = 1)] id: String,
        #[prost(int32, tag = 3)] state: i32,
        #[prost(int32, tag = 7)] exit_code: i32,
        #[prost(string, tag = 10)] reason: String,
        #[prost(string, tag = 11)] message: String,
    }
    /// `UpdateContainerResourcesRequest`.
    UpdateResourcesRequest {
        #[prost(string, tag = 1)] container_id: String,
        #[prost(message, optional, tag = 2)] linux: Option<Resources>,
    }
    /// `ExecSyncRequest`.
    ExecSyncRequest {
        #[prost(string, tag = 1)] container_id: String,
        #[prost(string, repeated, tag = 2)] cmd: Vec<String>,
        #[prost(int64, tag = 3)] timeout_s: i64,
    }
    /// `ExecSyncResponse`.
    ExecSyncResponse {
        #[prost(bytes = "vec", tag = 1)] stdout: Vec<u8>,
        #[prost(bytes = "vec", tag = 2)] stderr: Vec<u8>,
        #[prost(int32, tag = 3)] exit_code: i32,
    }
    /// `ExecRequest`.
    ExecRequest {
        #[prost(string, tag = 1)] container_id: String,
        #[prost(string, repeated, tag = 2)] cmd: Vec<String>,
        #[prost(bool, tag = 3)] tty: bool,
        #[prost(bool, tag = 4)] stdin: bool,
        #[prost(bool, tag = 5)] stdout: bool,
        #[prost(bool, tag = 6)] stderr: bool,
    }
    /// `AttachRequest`.
    AttachRequest {
        #[prost(string, tag = 1)] container_id: String,
        #[prost(bool, tag = 2)] stdin: bool,
        #[prost(bool, tag = 3)] tty: bool,
        #[prost(bool, tag = 4)] stdout: bool,
        #[prost(bool, tag = 5)] stderr: bool,
    }
    /// `PortForwardRequest`.
    PortForwardRequest {
        #[prost(string, tag = 1)] pod_sandbox_id: String,
        #[prost(int32, repeated, tag = 2)] port: Vec<i32>,
    }
    /// `ExecResponse`, `AttachResponse`, `PortForwardResponse`.
    UrlResponse { #[prost(string, tag = 1)] url: String }
    /// `ContainerStatsResponse`.
    ContainerStatsResponse { #[prost(message, optional, tag = 1)] stats: Option<ContainerStats> }
    /// `ContainerStats`.
    ContainerStats {
        #[prost(message, optional, tag = 2)] cpu: Option<CpuUsage>,
        #[prost(message, optional, tag = 3)] memory: Option<MemoryUsage>,
    }
    /// `CpuUsage`.
    CpuUsage { #[prost(message, optional, tag = 2)] usage_core_nano_seconds: Option<UInt64Value> }
    /// `MemoryUsage`.
    MemoryUsage { #[prost(message, optional, tag = 2)] working_set_bytes: Option<UInt64Value> }
    /// `PodSandboxStatsResponse`.
    PodSandboxStatsResponse { #[prost(message, optional, tag = 1)] stats: Option<PodSandboxStats> }
    /// `PodSandboxStats`.
    PodSandboxStats { #[prost(message, optional, tag = 2)] linux: Option<PodStatsLinux> }
    /// `LinuxPodSandboxStats`.
    PodStatsLinux {
        #[prost(message, optional, tag = 1)] cpu: Option<CpuUsage>,
        #[prost(message, optional, tag = 2)] memory: Option<MemoryUsage>,
        #[prost(message, optional, tag = 4)] process: Option<ProcessUsage>,
        #[prost(message, repeated, tag = 5)] containers: Vec<ContainerStats>,
    }
    /// `ProcessUsage`.
    ProcessUsage { #[prost(message, optional, tag = 2)] process_count: Option<UInt64Value> }
}
