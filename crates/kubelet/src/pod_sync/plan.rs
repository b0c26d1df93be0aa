//! The next steps from the present state.

use super::*;

/// What the restart policy says about a finished container.
fn restarts(role: Role, policy: &str, exit_code: i32) -> bool {
    match (role, policy) {
        (Role::Ephemeral, _) => false,
        (Role::Sidecar, _) => true,
        (Role::Init, "Never") => false,
        (Role::Init, _) => exit_code != 0,
        (Role::Main, "Always") => true,
        (Role::Main, "OnFailure") => exit_code != 0,
        (Role::Main, _) => false,
    }
}

impl PodMachine {
    pub(super) fn restart_policy(&self) -> &str {
        let spec = self.pod.spec.as_ref();
        spec.and_then(|spec| spec.restart_policy.as_deref())
            .unwrap_or("Always")
    }

    /// Names in starting order with roles.
    fn order(&self) -> Vec<(String, Role)> {
        roles(&self.pod)
            .map(|(role, container)| (container.name.clone(), role))
            .collect()
    }

    pub(super) fn plan(&mut self, now: Millis, actions: &mut Vec<Action>) {
        if self.done {
            return;
        }
        self.decide_ending(now);
        if self.ending.is_some() {
            self.plan_end(now, actions);
            return;
        }
        if self.sandbox == Sandbox::Lost {
            self.plan_new_sandbox(now, actions);
            return;
        }
        let due = |at: Option<Millis>| at.is_none_or(|at| at <= now);
        if self.volumes == Volumes::None && due(self.volume_retry_at) {
            self.volumes = Volumes::Mounting;
            actions.push(Action::MountVolumes);
        }
        if self.sandbox == Sandbox::None && due(self.sandbox_retry_at) {
            self.sandbox = Sandbox::Creating;
            actions.push(Action::CreateSandbox);
        }
        if self.volumes == Volumes::Ready && matches!(self.sandbox, Sandbox::Ready(_)) {
            self.plan_containers(now, actions);
        }
    }

    fn decide_ending(&mut self, now: Millis) {
        if self.ending == Some(Ending::Removed) {
            return;
        }
        if self.pod.metadata.deletion_timestamp.is_some() {
            self.ending = Some(Ending::Deleted);
            return;
        }
        if self.ending.is_some() {
            return;
        }
        if self.sandbox == Sandbox::None
            && let Some(name) = crate::sysctl::forbidden(&self.pod)
        {
            self.verdict = Some((
                "SysctlForbidden",
                format!("Pod was rejected: forbidden sysctl: {name:?} not allowlisted"),
            ));
            self.ending = Some(Ending::Finished);
        } else if self.deadline().is_some_and(|deadline| deadline <= now) {
            self.verdict = Some((
                "DeadlineExceeded",
                "Pod was active on the node longer than the specified deadline".into(),
            ));
            self.ending = Some(Ending::Finished);
        } else if self.finished() {
            self.ending = Some(Ending::Finished);
        }
    }

    pub(super) fn deadline(&self) -> Option<Millis> {
        let seconds = self.pod.spec.as_ref()?.active_deadline_seconds?;
        Some(self.start_time + Millis::try_from(seconds).ok()? * 1000)
    }

    /// Whether no container will ever run again: an init container failed for good, or every
    /// regular container ended for good.
    fn finished(&self) -> bool {
        let policy = self.restart_policy();
        let ended_for_good = |tracked: &Tracked| {
            tracked
                .exited()
                .is_some_and(|ended| !restarts(tracked.role, policy, ended.exit_code))
        };
        let init_failed = self.containers.values().any(|tracked| {
            tracked.role == Role::Init
                && ended_for_good(tracked)
                && tracked.exited().is_some_and(|ended| ended.exit_code != 0)
        });
        let mut main = self
            .containers
            .values()
            .filter(|tracked| tracked.role == Role::Main);
        init_failed || main.all(ended_for_good)
    }

    fn plan_containers(&mut self, now: Millis, actions: &mut Vec<Action>) {
        for (name, role) in self.order() {
            match role {
                Role::Init => {
                    if self.initialized
                        || self.containers[&name]
                            .exited()
                            .is_some_and(|ended| ended.exit_code == 0)
                    {
                        continue;
                    }
                    self.ensure_running(&name, now, actions);
                    return;
                }
                Role::Sidecar => {
                    self.ensure_running(&name, now, actions);
                    let tracked = &self.containers[&name];
                    // The next one waits for the sidecar to have started (its startup probe and hook).
                    let up = tracked.started
                        && matches!(
                            &tracked.phase,
                            Phase::Running {
                                post_start_pending: false,
                                ..
                            }
                        );
                    if !up && !self.initialized {
                        return;
                    }
                }
                Role::Ephemeral => self.ensure_running(&name, now, actions),
                Role::Main => {
                    self.initialized = true;
                    self.ensure_running(&name, now, actions);
                    // A postStart hook holds back the containers after it.
                    let tracked = &self.containers[&name];
                    let held = match &tracked.phase {
                        Phase::Starting => self.has_post_start(&name),
                        Phase::Running {
                            post_start_pending, ..
                        } => *post_start_pending,
                        _ => false,
                    };
                    if held {
                        return;
                    }
                }
            }
        }
    }

    fn ensure_running(&mut self, name: &str, now: Millis, actions: &mut Vec<Action>) {
        let policy = self.restart_policy().to_owned();
        let long_name = self.long_name();
        let image = self
            .container(name)
            .and_then(|container| container.image.clone())
            .unwrap_or_default();
        let Some(tracked) = self.containers.get_mut(name) else {
            return;
        };
        if tracked.active() || tracked.retry_at.is_some_and(|at| at > now) {
            return;
        }
        // A crash back-off shows as Waiting while the exit moved to `last`.
        if let Phase::Exited(ended) = &tracked.phase {
            if !restarts(tracked.role, &policy, ended.exit_code) {
                return;
            }
            let until = tracked
                .crash
                .blocked_until(ended.finished_at)
                .filter(|until| *until > now);
            if let Some(until) = until {
                let wait = go_duration(tracked.crash.current());
                actions.push(warning(
                    "BackOff",
                    format!("Back-off restarting failed container {name} in pod {long_name}"),
                    Some(name.to_owned()),
                ));
                tracked.last = Some(ended.clone());
                tracked.phase = Phase::Waiting(Some((
                    "CrashLoopBackOff",
                    format!("back-off {wait} restarting failed container={name} pod={long_name}"),
                )));
                tracked.retry_at = Some(until);
                return;
            }
            let finished_at = ended.finished_at;
            tracked.last = Some(ended.clone());
            tracked.crash.next(finished_at);
            tracked.restart_count += 1;
            tracked.instance += 1;
        } else if matches!(
            &tracked.phase,
            Phase::Waiting(Some(("CrashLoopBackOff", _)))
        ) {
            tracked.crash.next(now);
            tracked.restart_count += 1;
            tracked.instance += 1;
        }
        if self.catalog.resolve(&image).is_none() {
            let container = Some(name.to_owned());
            let repeated = tracked.pull.current() > 0;
            let wait = tracked.pull.next(now);
            tracked.retry_at = Some(now + wait);
            let why = self.catalog.pull_error(&image);
            let (reason, message) = if repeated {
                actions.push(normal(
                    "BackOff",
                    format!("Back-off pulling image {image:?}"),
                    container.clone(),
                ));
                actions.push(warning(
                    "Failed",
                    "Error: ImagePullBackOff".into(),
                    container,
                ));
                (
                    "ImagePullBackOff",
                    format!("Back-off pulling image {image:?}: ErrImagePull: {why}"),
                )
            } else {
                actions.push(normal(
                    "Pulling",
                    format!("Pulling image {image:?}"),
                    container.clone(),
                ));
                actions.push(warning(
                    "Failed",
                    format!("Failed to pull image {image:?}: {why}"),
                    container.clone(),
                ));
                actions.push(warning("Failed", "Error: ErrImagePull".into(), container));
                // The back-off state follows soon, as with a real registry.
                tracked.retry_at = Some(now + 1_000);
                ("ErrImagePull", why)
            };
            tracked.phase = Phase::Waiting(Some((reason, message)));
            return;
        }
        tracked.retry_at = None;
        tracked.phase = Phase::Starting;
        actions.push(normal(
            "Pulled",
            format!("Container image {image:?} already present on machine"),
            Some(name.to_owned()),
        ));
        actions.push(Action::StartContainer {
            name: name.to_owned(),
            instance: tracked.instance,
        });
    }

    fn plan_new_sandbox(&mut self, now: Millis, actions: &mut Vec<Action>) {
        let names: Vec<String> = self.containers.keys().cloned().collect();
        let mut any = false;
        for name in names {
            any |= self.stop(&name, 0, now, actions);
        }
        if !any {
            self.sandbox = Sandbox::Destroying;
            actions.push(Action::DestroySandbox);
        }
    }

    /// Asks a running container to stop within `grace`, unless it already has to stop by then.
    /// Returns whether it is still there.
    fn stop(&mut self, name: &str, grace: Millis, now: Millis, actions: &mut Vec<Action>) -> bool {
        let Some(tracked) = self.containers.get_mut(name) else {
            return false;
        };
        let instance = tracked.instance;
        match &mut tracked.phase {
            Phase::Running { stop_by, .. } => {
                let deadline = now + grace;
                // Not sooner means: already on its way. (A tick later is not a shorter grace period.)
                let sooner = stop_by.is_none_or(|known| deadline < known);
                if sooner {
                    if stop_by.is_none() {
                        actions.push(normal(
                            "Killing",
                            format!("Stopping container {name}"),
                            Some(name.to_owned()),
                        ));
                    }
                    *stop_by = Some(deadline);
                    actions.push(Action::StopContainer {
                        name: name.to_owned(),
                        instance,
                        grace,
                    });
                }
                true
            }
            Phase::Starting => true,
            _ => false,
        }
    }

    /// How long the pod may still take to end.
    fn grace_left(&self, now: Millis) -> Millis {
        let meta = &self.pod.metadata;
        match self.ending {
            Some(Ending::Deleted) => {
                let grace = meta.deletion_grace_period_seconds;
                let spec = self.spec_grace() / 1000;
                let seconds = grace
                    .and_then(|grace| Millis::try_from(grace).ok())
                    .unwrap_or(spec);
                // deletionTimestamp is when the object should be gone: a restarted node does not
                // grant the whole period again.
                let by = meta.deletion_timestamp.as_ref();
                let by = by
                    .and_then(|at| Millis::try_from(at.0.as_millisecond()).ok())
                    .unwrap_or(now);
                (seconds * 1000).min((by + 1000).saturating_sub(now).max(if seconds == 0 {
                    0
                } else {
                    1000
                }))
            }
            Some(Ending::Removed) => 1_000.min(self.spec_grace()),
            _ => self.spec_grace(),
        }
    }

    fn plan_end(&mut self, now: Millis, actions: &mut Vec<Action>) {
        let grace = self.grace_left(now);
        let order = self.order();
        let mut left = false;
        for (name, role) in &order {
            if *role != Role::Sidecar {
                left |= self.stop(name, grace, now, actions);
            }
        }
        // Sidecars end after the containers they serve, the last started first.
        for (name, role) in order.iter().rev() {
            if *role == Role::Sidecar && !left {
                left |= self.stop(name, grace, now, actions);
            }
        }
        if left {
            return;
        }
        let busy = matches!(self.sandbox, Sandbox::Creating | Sandbox::Destroying)
            || self.volumes == Volumes::Mounting;
        if busy {
            return;
        }
        let nothing_made = self.sandbox == Sandbox::None && self.volumes == Volumes::None;
        if nothing_made {
            self.torn_down = true;
        }
        if !self.torn_down {
            if !self.tearing_down {
                self.tearing_down = true;
                actions.push(Action::TearDown);
            }
            return;
        }
        self.sandbox = Sandbox::None;
        self.volumes = Volumes::None;
        match self.ending {
            Some(Ending::Deleted) => {
                self.done = true;
                actions.push(Action::DeletePod);
            }
            Some(Ending::Removed) => {
                self.done = true;
                actions.push(Action::Forget);
            }
            _ => {}
        }
    }

    /// When the machine wants an [`Input::Tick`], if nothing else happens before.
    pub fn wake_at(&self) -> Option<Millis> {
        if self.done {
            return None;
        }
        let mut times: Vec<Millis> = Vec::new();
        if self.ending.is_none() {
            times.extend(self.deadline());
            if self.volumes == Volumes::None {
                times.extend(self.volume_retry_at);
            }
            if self.sandbox == Sandbox::None {
                times.extend(self.sandbox_retry_at);
            }
            times.extend(
                self.containers
                    .values()
                    .filter(|tracked| !tracked.active())
                    .filter_map(|tracked| tracked.retry_at),
            );
        }
        times.into_iter().min()
    }

    /// Whether the worker of this pod can end.
    pub fn is_done(&self) -> bool {
        self.done
    }
}
