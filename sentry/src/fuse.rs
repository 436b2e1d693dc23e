//! The type "fuse" of mount(2): its server is named by a descriptor of the caller.

use crate::kernel::Kernel;
use crate::procfs::subject;
use abi::{Errno, Fd, SysResult};
use std::sync::{Arc, Weak};
use vfs::fuse::device::Device;
use vfs::fuse::{FuseFs, Options};
use vfs::{FileSystem, FsType, MountRequest};

/// See the module.
pub(crate) struct FuseType(Weak<Kernel>);

impl FuseType {
    pub(crate) fn new(kernel: &Arc<Kernel>) -> Arc<FuseType> {
        Arc::new(FuseType(Arc::downgrade(kernel)))
    }
}

impl FsType for FuseType {
    fn name(&self) -> &'static str {
        "fuse"
    }
    fn in_user_namespace(&self) -> bool {
        true
    }
    fn mount(&self, request: &MountRequest<'_>) -> SysResult<Arc<dyn FileSystem>> {
        let options = Options::parse(request.data)?;
        let kernel = self.0.upgrade().ok_or(Errno::ENODEV)?;
        let caller = subject::reader(&kernel, request.walk.by).ok_or(Errno::EINVAL)?;
        let files = caller.published.lock().files.clone().ok_or(Errno::EINVAL)?;
        let file = files.get(Fd::new(options.fd)).map_err(|_| Errno::EINVAL)?;
        let device: &Device = file.downcast().ok_or(Errno::EINVAL)?;
        Ok(FuseFs::mount(device, options, request.walk.by)?)
    }
}
