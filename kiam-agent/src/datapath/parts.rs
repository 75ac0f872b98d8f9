//! The parts of the datapath that reconciliation, the self-check and the reachability probe share.

use super::{
    fence::Fence,
    guard::Guard,
    node::{devices, roles::Roles},
    programs::{object::Object, pins::Pins, tc::Hook},
    redirect::{connection_records::ConnectionRecords, interfaces::Attachments, listener},
};
use crate::{config::DatapathConfig, datapath::node::interface_ages::InterfaceAges};
use anyhow::Context as _;
use std::{
    net::TcpListener,
    path::{Path, PathBuf},
};

/// The programs, their pins, and the places where they are attached.
pub(crate) struct Parts {
    pub(crate) config: DatapathConfig,
    /// The project's folder in the bpffs.
    pub(crate) root: PathBuf,
    pub(crate) pins: Pins,
    pub(crate) object: Object,
    pub(crate) fence: Fence,
    pub(crate) guard: Guard,
    pub(crate) attachments: Attachments,
    pub(crate) listeners: Vec<TcpListener>,
    pub(crate) netlink: rtnetlink::Handle,
    /// Roles of the node's interfaces, as of the last reconciliation.
    pub(crate) roles: Roles,
}

impl Parts {
    /// Loads the programs and opens the listening sockets. Attaches nothing and puts nothing into a slot.
    ///
    /// # Errors
    /// What this node lacks, and how to provide it.
    pub(crate) fn open(
        config: &DatapathConfig,
        root: &Path,
        netlink: rtnetlink::Handle,
        interface_ages: InterfaceAges,
    ) -> anyhow::Result<Self> {
        let fence = Fence::new(netlink.clone());
        let pins = Pins::open(root)?;
        let object = Object::load(root, &pins).context("loading the eBPF programs")?;
        let listeners = listener::open_all(&fence.served(), config.mode).context("opening the listeners")?;
        let hook = Hook::new(config.tc);
        Ok(Self {
            config: config.clone(),
            root: root.to_owned(),
            attachments: Attachments::new(hook, interface_ages, ConnectionRecords::open(&pins)?),
            guard: Guard::new(hook),
            pins,
            object,
            fence,
            listeners,
            netlink,
            roles: Roles::default(),
        })
    }

    /// Opens the pins again, creates those that are missing, and drops what is recorded of interfaces: another agent may
    /// have changed what is on them.
    pub(crate) fn reopen(&mut self, interface_ages: InterfaceAges) -> anyhow::Result<()> {
        self.pins = Pins::open(&self.root)?;
        self.object.pin_missing(&self.pins)?;
        let hook = Hook::new(self.config.tc);
        self.guard = Guard::new(hook);
        self.attachments = Attachments::new(hook, interface_ages, ConnectionRecords::open(&self.pins)?);
        Ok(())
    }

    /// Returns the role of each interface: whether pods or a network are behind it.
    pub(crate) async fn find_roles(&self) -> anyhow::Result<Roles> {
        let devices = devices::list(&self.netlink).await.context("listing the interfaces")?;
        let gateways = devices::with_gateway(&self.netlink, self.fence.families()).await;
        let mut roles = Roles::of(&devices, &self.config.interfaces, &gateways.context("listing the routes")?);
        if !self.config.mode.tc {
            roles.pod_sides.clear();
        }
        Ok(roles)
    }
}
