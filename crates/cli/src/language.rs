//! The one catalogue of what `theater` says to people, in English and Korean.
//!
//! Every message is one macro entry with both texts, so that a missing translation does not
//! compile.

use std::sync::OnceLock;

/// A language of the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// English.
    English,
    /// Korean.
    Korean,
}

/// Chooses the language, `en` or `ko`; wins over the locale.
pub const LANGUAGE_VARIABLE: &str = "THEATER_LANG";

impl Language {
    /// The language for the given environment: `THEATER_LANG`, else the first set of `LC_ALL`,
    /// `LC_MESSAGES`, `LANG` (the POSIX order), else English.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Self {
        let value = [LANGUAGE_VARIABLE, "LC_ALL", "LC_MESSAGES", "LANG"]
            .iter()
            .find_map(|name| variable(name).filter(|value| !value.is_empty()))
            .unwrap_or_default();
        if value.to_ascii_lowercase().starts_with("ko") {
            Self::Korean
        } else {
            Self::English
        }
    }
}

/// The language of this process.
pub fn current() -> Language {
    static LANGUAGE: OnceLock<Language> = OnceLock::new();
    *LANGUAGE.get_or_init(|| Language::from_environment(|name| std::env::var(name).ok()))
}

macro_rules! messages {
    ($($(#[$doc:meta])* $name:ident ( $($argument:ident),* ) { $english:literal $korean:literal })*) => {
        $(
            $(#[$doc])*
            pub fn $name($($argument: impl std::fmt::Display),*) -> String {
                match current() {
                    Language::English => format!($english),
                    Language::Korean => format!($korean),
                }
            }
        )*
    };
}

messages! {
    /// Heading of the progress screen.
    starting() { "Starting two clusters, one mesh and the theater …" "클러스터 둘, 메시 하나, 그리고 극장을 시작합니다 …" }
    /// `theater fault` put an object in place.
    fault_applied(cluster, kind, name) { "{cluster}: {kind} {name} applied" "{cluster}: {kind} {name} 적용" }
    /// `theater fault recover` took an object away.
    fault_removed(cluster, kind, name) { "{cluster}: {kind} {name} removed" "{cluster}: {kind} {name} 제거" }
    /// `theater fault test` put a rule back as it was.
    fault_restored(cluster, kind, name) { "{cluster}: {kind} {name} as before" "{cluster}: {kind} {name} 원래대로" }
    /// `theater fault test` has asked; the counts follow.
    fault_asked(url, number) { "== {url}: {number} requests at once: how often, status, cluster, whole seconds" "== {url}: 동시에 {number}번 요청: 횟수, 상태, 클러스터, 초(정수)" }
    /// `theater fault test` begins the exercise.
    fault_breaker() { "== circuit breaker: one connection to movie-service, one request may wait, the others are 503 (flag UO); a pod that fails is left out (UH)" "== 서킷 브레이커: movie-service로 연결 하나, 대기 하나만 허용하고 나머지는 503 (플래그 UO). 실패하는 파드는 제외됩니다 (UH)" }
    /// `theater fault test` cannot see that the rule is in force.
    fault_not_seen(cluster) { "{cluster}: the sidecar of api-gateway does not show the rule; asking all the same" "{cluster}: api-gateway의 사이드카에서 규칙이 보이지 않지만 그대로 요청합니다" }
    /// A cluster's API server answers.
    cluster_ready(cluster, provider, seconds) { "  {cluster} ({provider}): API server ready after {seconds} s" "  {cluster} ({provider}): API 서버 준비 완료, {seconds}초" }
    /// How many pods are ready so far.
    pods_ready(cluster, ready, total) { "  {cluster}: {ready}/{total} pods ready" "  {cluster}: 파드 {ready}/{total}개 준비됨" }
    /// Everything answers.
    all_ready(seconds) { "Ready in {seconds} s." "{seconds}초 만에 준비되었습니다." }
    /// Where the page is.
    url_page(url) { "  Theater    {url}" "  극장       {url}" }
    /// Where an API server is.
    url_api(cluster, url) { "  {cluster} API   {url}" "  {cluster} API   {url}" }
    /// What to type next.
    what_next() { "In another terminal:" "다른 터미널에서 입력해 보세요:" }
    /// How to stop.
    how_to_stop() { "Ctrl-C or `theater down` stops everything; objects and bookings are kept." "Ctrl-C 또는 `theater down`으로 모두 멈춥니다. 객체와 예약은 보존됩니다." }
    /// Being stopped.
    stopping() { "Stopping …" "멈추는 중 …" }
    /// Stopped.
    stopped() { "Stopped." "멈췄습니다." }
    /// `theater analyze FILES` without a theater.
    analyzing_files_only() { "No theater is running, so the files are analyzed alone. Start one with `theater up` to analyze them together with the clusters." "실행 중인 극장이 없어 파일만 분석합니다. 클러스터와 함께 분석하려면 `theater up`으로 시작하세요." }
    /// `down`, `status`… without a running theater.
    not_running(directory) { "no theater is running with the state directory {directory}; start one with `theater up`" "상태 디렉터리 {directory}로 실행 중인 극장이 없습니다. `theater up`으로 시작하세요" }
    /// `up` while one runs.
    already_running(pid, url) { "a theater is already running (process {pid}) at {url}; stop it with `theater down`, or start a second one with another --state-dir" "극장이 이미 실행 중입니다(프로세스 {pid}, {url}). `theater down`으로 멈추거나 다른 --state-dir로 하나 더 시작하세요" }
    /// `up` brought a dead cluster back.
    cluster_restarted(cluster) { "cluster {cluster} was down and has been started again" "멈춰 있던 클러스터 {cluster}를 다시 시작했습니다" }
    /// A cluster process ended by itself.
    cluster_died(cluster, status) { "Cluster {cluster} ended ({status}); the other one keeps serving. `theater up` starts it again." "클러스터 {cluster}가 종료되었습니다({status}). 다른 클러스터는 계속 동작합니다. `theater up`으로 다시 시작하세요." }
    /// A port given by the user cannot be bound.
    port_taken(port, option, error) { "port {port} cannot be opened: {error}; choose another one with {option}" "포트 {port}를 열 수 없습니다: {error}. {option}로 다른 포트를 지정하세요" }
    /// An option names a program that is none.
    no_program(path, error) { "{path} is not a program that can be started: {error}" "{path}은(는) 실행할 수 있는 프로그램이 아닙니다: {error}" }
    /// A wish that could not be had.
    port_skipped(port, error) { "  (port {port} is not available: {error})" "  (포트 {port}를 쓸 수 없습니다: {error})" }
    /// The scene has been put back.
    reset_done(seconds) { "The initial scene is back ({seconds} s)." "초기 상태로 되돌렸습니다({seconds}초)." }
    /// The link of a cluster was changed.
    wan_set(cluster, cut, latency, loss) { "link of {cluster}: cut {cut}, latency {latency} ms, loss {loss}%" "{cluster}의 링크: 단절 {cut}, 지연 {latency} ms, 손실 {loss}%" }
    /// There is no cluster of that name.
    no_such_cluster(name, known) { "there is no cluster \"{name}\"; there are {known}" "클러스터 \"{name}\"가 없습니다. 있는 것은 {known}입니다" }
    /// A timeout during start.
    not_ready_in_time(what, seconds, hint) { "{what} was not ready within {seconds} s; {hint}" "{seconds}초 안에 {what}가 준비되지 않았습니다. {hint}" }
}

/// `--help` in Korean: command (and argument) to text. English is what the declarations of the commands say; a test compares the keys.
const KOREAN_HELP: &[(&str, &str)] = &[
    (
        "",
        "한 대의 컴퓨터에서 쿠버네티스 클러스터 둘, Istio 호환 메시 하나, 그리고 극장을 실행합니다",
    ),
    ("help", "도움말을 출력합니다"),
    ("version", "버전을 출력합니다"),
    (
        "state_dir",
        "객체, 예약, 키를 보관할 디렉터리 [기본값: ~/.local/state/theater]",
    ),
    (
        "up",
        "모두 시작하고 포그라운드에 머뭅니다. 종료된 클러스터가 있으면 다시 시작합니다",
    ),
    (
        "up port",
        "페이지와 API의 단일 포트, http://와 https:// 공용 [기본값: 80과 443, 안 되면 8080]",
    ),
    (
        "up api_port",
        "첫 번째 클러스터 API 서버의 포트. 두 번째는 그다음 포트 [기본값: 6443]",
    ),
    (
        "up envoy",
        "애너테이션 sidecar.istio.io/proxyImage: proxyv2-envoy로 요청한 파드가 쓸 Envoy 프로그램",
    ),
    (
        "env",
        "셸에 필요한 설정을 출력합니다: eval \"$(theater env)\"",
    ),
    ("status", "실행 중인 극장을 보여 줍니다"),
    (
        "down",
        "실행 중인 극장을 멈춥니다. 객체와 예약은 보존됩니다",
    ),
    ("reset", "초기 상태로 되돌립니다"),
    (
        "reset all",
        "상태 디렉터리의 모든 것을 키까지 지웁니다(멈춘 극장에서만)",
    ),
    ("logs", "클러스터 자체의 로그를 보여 줍니다"),
    ("logs cluster", "이 클러스터만"),
    ("logs tail", "끝에서부터 출력할 줄 수 [기본값: 50]"),
    ("logs follow", "계속 출력합니다"),
    (
        "wan",
        "클러스터와 인터넷 사이의 링크를 끊거나 늦추거나 복구합니다. 옵션이 없으면 복구합니다",
    ),
    ("wan cluster", "클러스터"),
    ("wan cut", "아무것도 통과시키지 않습니다"),
    (
        "wan latency",
        "방향별 지연, 밀리초 단위(커널에 netem 필요) [기본값: 0]",
    ),
    ("wan loss", "손실되는 패킷의 비율, 퍼센트 [기본값: 0]"),
    (
        "fault",
        "k8s/fault-injection-demo.sh처럼 일부러 장애를 일으킵니다: setup, delay, circuit, error, block, chaos, recover, status, test",
    ),
    (
        "fault scenario",
        "일으킬 일:\n\
         - setup: 서킷 브레이커. 실제로 실패하는 파드가 제외됩니다\n\
         - delay: movie-service. ctx2의 응답만 3초 걸리고 ctx1은 그대로입니다\n\
         - circuit: user-service. 요청의 30 %, 헤더 x-circuit-test: true가 있으면 90 %가 실패합니다\n\
         - error: user-service. 요청의 50 %가 실패합니다\n\
         - block: booking-service. ctx2로는 아무것도 가지 않습니다\n\
         - chaos: delay, error, block을 함께\n\
         - recover: 처음 상태로 되돌립니다\n\
         - status: 적용 중인 장애를 보여 줍니다\n\
         - test: 서비스마다 동시에 20번 요청해 세고, 이어서 열리는 서킷 브레이커를 두고 movie-service에 요청합니다",
    ),
    ("fault context", "이 클러스터에만"),
    (
        "proxy",
        "Envoy 부트스트랩 파일로 프록시만 실행합니다: theater proxy -c 파일",
    ),
    (
        "istioctl",
        "Istio의 명령줄: theater istioctl proxy-config, proxy-status, version, ...",
    ),
    (
        "analyze",
        "파일이나 실행 중인 클러스터의 Istio 설정에서 잘못을 찾습니다: istioctl analyze",
    ),
    (
        "xds",
        "쿠버네티스 객체와 Istio 설정 파일로부터, 파드의 프록시가 받게 될 설정을 Envoy의 config dump로 보여 줍니다",
    ),
    (
        "xds filename",
        "쿠버네티스 객체와 Istio 설정이 든 YAML 또는 JSON 파일이나 디렉터리. `-`는 표준 입력",
    ),
    (
        "xds proxy",
        "프록시를 볼 파드, NAME.NAMESPACE 형식. NAME은 Deployment의 이름이어도 됩니다",
    ),
    (
        "xds namespace",
        "네임스페이스를 적지 않은 객체의 네임스페이스 [기본값: default]",
    ),
    ("xds cluster", "메시에서 클러스터의 ID [기본값: Kubernetes]"),
    (
        "xds table",
        "전체 덤프 대신 `istioctl proxy-config`처럼 표로: clusters, listeners, routes, endpoints",
    ),
];

/// The Korean text for a command (`up`) or an argument of one (`up port`).
pub fn korean_help(key: &str) -> Option<&'static str> {
    let entry = KOREAN_HELP.iter().find(|(known, _)| *known == key);
    entry.map(|(_, text)| *text)
}

/// What there is Korean help for.
#[cfg(test)]
pub fn korean_help_keys() -> impl Iterator<Item = &'static str> {
    KOREAN_HELP.iter().map(|(key, _)| *key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_chooses_the_language_in_posix_order() {
        let environment = |pairs: &'static [(&str, &str)]| {
            Language::from_environment(|name| {
                pairs
                    .iter()
                    .find(|(key, _)| *key == name)
                    .map(|(_, value)| (*value).to_owned())
            })
        };
        assert_eq!(environment(&[]), Language::English);
        assert_eq!(environment(&[("LANG", "ko_KR.UTF-8")]), Language::Korean);
        assert_eq!(
            environment(&[("LANG", "ko_KR.UTF-8"), ("LC_ALL", "en_US.UTF-8")]),
            Language::English
        );
        assert_eq!(
            environment(&[("LC_ALL", "C"), ("THEATER_LANG", "ko")]),
            Language::Korean
        );
    }
}
