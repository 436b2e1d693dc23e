//! A client of the runtime service: one blocking call per method.

use crate::api::{
    AttachRequest, ById, ContainerConfig, ContainerStats, ContainerStatsResponse, ContainerStatus,
    ContainerStatusResponse, CreateContainerRequest, Empty, ExecRequest, ExecSyncRequest, ExecSyncResponse,
    ImageSpec, ImageStatusRequest, ImageStatusResponse, ListContainersResponse, ListPodSandboxResponse,
    PodSandboxStats, PodSandboxStatsResponse, PodSandboxStatus, PodSandboxStatusResponse, PortForwardRequest,
    Resources, RunPodSandboxRequest, SandboxConfig, StatusRequest, StatusResponse, StopContainerRequest,
    UpdateResourcesRequest, UrlResponse, VersionResponse,
};
use hyper_util::rt::TokioIo;
use prost::Message;
use std::path::Path;
use std::time::Duration;
use tokio::net::UnixStream;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

/// No call may take longer.
const LIMIT: Duration = Duration::from_secs(60);

/// A connection to containerd's CRI plugin.
#[derive(Debug)]
pub struct Cri {
    runtime: tokio::runtime::Runtime,
    channel: Channel,
}

/// What calls return.
pub type Answer<T> = Result<T, Status>;

impl Cri {
    /// A client of the daemon behind `socket`; connects with the first call.
    #[must_use]
    pub fn new(socket: &Path) -> Cri {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("tokio");
        let socket = socket.to_path_buf();
        let connector = tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        let channel = {
            let _entered = runtime.enter();
            Endpoint::from_static("http://cri").connect_with_connector_lazy(connector)
        };
        Cri { runtime, channel }
    }

    fn call<Q, A>(&self, method: &str, question: Q) -> Answer<A>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        self.call_service(&format!("RuntimeService/{method}"), question)
    }

    fn call_service<Q, A>(&self, method: &str, question: Q) -> Answer<A>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let path = PathAndQuery::try_from(format!("/runtime.v1.{method}")).expect("a path");
        let mut grpc = tonic::client::Grpc::new(self.channel.clone());
        self.runtime.block_on(async move {
            let work = async {
                grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
                let codec: ProstCodec<Q, A> = ProstCodec::default();
                grpc.unary(Request::new(question), path, codec).await
            };
            match tokio::time::timeout(LIMIT, work).await {
                Ok(answer) => answer.map(tonic::Response::into_inner),
                Err(_) => Err(Status::deadline_exceeded(format!("no answer after {LIMIT:?}"))),
            }
        })
    }

    /// `ImageStatus`: whether there is such an image.
    pub fn image_is_there(&self, image: &str) -> Answer<bool> {
        let question = ImageStatusRequest { image: Some(ImageSpec { image: image.to_owned() }) };
        let answer: ImageStatusResponse = self.call_service("ImageService/ImageStatus", question)?;
        Ok(answer.image.is_some())
    }
    /// `Version`.
    pub fn version(&self) -> Answer<VersionResponse> {
        self.call("Version", Empty {})
    }
    /// `Status`.
    pub fn status(&self) -> Answer<StatusResponse> {
        self.call("Status", Empty {})
    }
    /// `RunPodSandbox`: the pod's id.
    pub fn run_pod(&self, config: &SandboxConfig, handler: &str) -> Answer<String> {
        let question =
            RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: handler.to_owned() };
        self.call::<_, ById>("RunPodSandbox", question).map(|answer| answer.id)
    }
    /// `StopPodSandbox`.
    pub fn stop_pod(&self, id: &str) -> Answer<Empty> {
        self.call("StopPodSandbox", ById { id: id.to_owned() })
    }
    /// `RemovePodSandbox`.
    pub fn remove_pod(&self, id: &str) -> Answer<Empty> {
        self.call("RemovePodSandbox", ById { id: id.to_owned() })
    }
    /// `PodSandboxStatus`, with its `info`.
    pub fn pod_status(&self, id: &str) -> Answer<(PodSandboxStatus, String)> {
        let question = StatusRequest { id: id.to_owned(), verbose: true };
        let answer: PodSandboxStatusResponse = self.call("PodSandboxStatus", question)?;
        Ok((answer.status.unwrap_or_default(), answer.info.get("info").cloned().unwrap_or_default()))
    }
    /// `ListPodSandbox`.
    pub fn pods(&self) -> Answer<ListPodSandboxResponse> {
        self.call("ListPodSandbox", Empty {})
    }
    /// `CreateContainer`: its id.
    pub fn create(&self, pod: &str, config: &ContainerConfig, sandbox: &SandboxConfig) -> Answer<String> {
        let question = CreateContainerRequest {
            pod_sandbox_id: pod.to_owned(),
            config: Some(config.clone()),
            sandbox_config: Some(sandbox.clone()),
        };
        self.call::<_, ById>("CreateContainer", question).map(|answer| answer.id)
    }
    /// `StartContainer`.
    pub fn start(&self, id: &str) -> Answer<Empty> {
        self.call("StartContainer", ById { id: id.to_owned() })
    }
    /// `StopContainer`.
    pub fn stop(&self, id: &str, timeout_s: i64) -> Answer<Empty> {
        self.call("StopContainer", StopContainerRequest { container_id: id.to_owned(), timeout_s })
    }
    /// `RemoveContainer`.
    pub fn remove(&self, id: &str) -> Answer<Empty> {
        self.call("RemoveContainer", ById { id: id.to_owned() })
    }
    /// `ListContainers`.
    pub fn containers(&self) -> Answer<ListContainersResponse> {
        self.call("ListContainers", Empty {})
    }
    /// `ContainerStatus`.
    pub fn container_status(&self, id: &str) -> Answer<ContainerStatus> {
        let question = StatusRequest { id: id.to_owned(), verbose: false };
        let answer: ContainerStatusResponse = self.call("ContainerStatus", question)?;
        Ok(answer.status.unwrap_or_default())
    }
    /// `ReopenContainerLog`.
    pub fn reopen_log(&self, id: &str) -> Answer<Empty> {
        self.call("ReopenContainerLog", ById { id: id.to_owned() })
    }
    /// `ExecSync`.
    pub fn exec_sync(&self, id: &str, cmd: &[&str], timeout_s: i64) -> Answer<ExecSyncResponse> {
        let cmd = cmd.iter().map(|&word| word.to_owned()).collect();
        self.call("ExecSync", ExecSyncRequest { container_id: id.to_owned(), cmd, timeout_s })
    }
    /// `Exec`: where to stream.
    pub fn exec(&self, question: ExecRequest) -> Answer<String> {
        self.call::<_, UrlResponse>("Exec", question).map(|answer| answer.url)
    }
    /// `Attach`: where to stream.
    pub fn attach(&self, question: AttachRequest) -> Answer<String> {
        self.call::<_, UrlResponse>("Attach", question).map(|answer| answer.url)
    }
    /// `PortForward`: where to stream.
    pub fn port_forward(&self, pod: &str, port: i32) -> Answer<String> {
        let question = PortForwardRequest { pod_sandbox_id: pod.to_owned(), port: vec![port] };
        self.call::<_, UrlResponse>("PortForward", question).map(|answer| answer.url)
    }
    /// `UpdateContainerResources`.
    pub fn update(&self, id: &str, resources: Resources) -> Answer<Empty> {
        let question = UpdateResourcesRequest { container_id: id.to_owned(), linux: Some(resources) };
        self.call("UpdateContainerResources", question)
    }
    /// `ContainerStats`.
    pub fn container_stats(&self, id: &str) -> Answer<ContainerStats> {
        let answer: ContainerStatsResponse = self.call("ContainerStats", ById { id: id.to_owned() })?;
        Ok(answer.stats.unwrap_or_default())
    }
    /// `PodSandboxStats`.
    pub fn pod_stats(&self, id: &str) -> Answer<PodSandboxStats> {
        let answer: PodSandboxStatsResponse = self.call("PodSandboxStats", ById { id: id.to_owned() })?;
        Ok(answer.stats.unwrap_or_default())
    }
}
