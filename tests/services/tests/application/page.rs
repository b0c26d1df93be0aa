//! The page in a real browser (spec B01 to B11, behaviours B83 to B85).

use std::collections::HashSet;
use std::time::Duration;

use serde_json::json;

use crate::harness::browser::Browser;
use crate::harness::http::{get, post};
use crate::harness::kube::{KubeApi, PODS, VIRTUAL_SERVICES, pod, virtual_service};
use crate::harness::mesh::{Mesh, Way};
use crate::harness::process::{Process, Redis};
use crate::harness::until;

/// Two replicas of user-service behind a stand-in for the mesh, one of the others, both Kubernetes
/// APIs, and the page open in a browser.
struct Scene {
    browser: Browser,
    gateway: Process,
    users: [Process; 2],
    mesh: Mesh,
    kube: KubeApi,
    bookings: Process,
    _others: (Redis, Process, KubeApi),
}

impl Scene {
    async fn start(width: u32, height: u32) -> Option<Self> {
        let browser = Browser::start(width, height).await?;
        let redis = Redis::start().await;
        let address = redis.address();
        let users = ["ctx1", "ctx2"].map(|cluster| {
            let pod = format!("user-service-{cluster}-7d9f");
            Process::service(
                "user-service",
                &[
                    ("REDIS_URL", &address),
                    ("CLUSTER_NAME", cluster),
                    ("HOSTNAME", &pod),
                ],
            )
        });
        let movies = Process::service(
            "movie-service",
            &[("REDIS_URL", &address), ("CLUSTER_NAME", "ctx2")],
        );
        let mesh = Mesh::start(vec![Way::To(users[0].port)]).await;
        let bookings = Process::service(
            "booking-service",
            &[
                ("REDIS_URL", &address),
                ("USER_SERVICE_URL", &mesh.url()),
                ("MOVIE_SERVICE_URL", &movies.url("")),
            ],
        );
        let (kube, other) = (KubeApi::start().await, KubeApi::start().await);
        kube.put(
            VIRTUAL_SERVICES,
            json!([
                virtual_service("user-service", 70, 30),
                virtual_service("movie-service", 30, 70),
                virtual_service("booking-service", 50, 50)
            ]),
        );
        let services = [
            "api-gateway",
            "user-service",
            "movie-service",
            "booking-service",
        ];
        kube.put(
            PODS,
            services
                .iter()
                .map(|service| pod(service, "ctx1-node-1", true))
                .collect(),
        );
        other.put(
            PODS,
            services[1..]
                .iter()
                .map(|service| pod(service, "ctx2-node-1", *service != "movie-service"))
                .collect(),
        );
        let (own, remote) = (kube.kubeconfig(None), other.kubeconfig(None));
        let gateway = Process::service(
            "api-gateway",
            &[
                ("USER_SERVICE_URL", &mesh.url()),
                ("MOVIE_SERVICE_URL", &movies.url("")),
                ("BOOKING_SERVICE_URL", &bookings.url("")),
                ("KUBECONFIG", own.to_str().unwrap()),
                ("REMOTE_KUBECONFIG", remote.to_str().unwrap()),
            ],
        );
        let mut scene = Self {
            browser,
            gateway,
            users,
            mesh,
            kube,
            bookings,
            _others: (redis, movies, other),
        };
        scene.open().await;
        Some(scene)
    }

    async fn open(&mut self) {
        self.browser.open(&self.gateway.url("/")).await;
        for list in ["users", "movies", "bookings"] {
            self.browser
                .wait(&format!(
                    "document.querySelectorAll('#{list} .list li').length > 0"
                ))
                .await;
        }
        self.browser
            .wait("document.querySelectorAll('#seats .seat').length === 60")
            .await;
    }

    /// The kinds of a service's lights, both clusters, without those that show nothing yet.
    async fn lights(&mut self, service: &str) -> [Vec<String>; 2] {
        let rows = self
            .browser
            .eval(&format!(
                "[...document.querySelectorAll('#{service} .row')].map(row => \
                 [...row.querySelectorAll('.light')].map(light => light.dataset.kind).filter(kind => kind !== 'none'))"
            ))
            .await;
        let row = |index: usize| {
            let kinds = rows[index].as_array().expect("a row").iter();
            kinds
                .map(|kind| kind.as_str().unwrap().to_owned())
                .collect()
        };
        [row(0), row(1)]
    }

    /// Refreshes a service and waits for the light of that request.
    async fn refresh(&mut self, service: &str) -> [String; 2] {
        let before = self.lights(service).await[0].len();
        self.browser.click(&format!("#{service} .refresh")).await;
        let newest = format!(
            "document.querySelectorAll('#{service} .row:first-child .light:not([data-kind=none])').length"
        );
        self.browser.wait(&format!("{newest} > {before}")).await;
        self.lights(service)
            .await
            .map(|row| row.last().expect("a light").clone())
    }

    /// Nothing went wrong that the page did not expect.
    fn check_console(&self) {
        assert!(
            self.browser.errors.is_empty(),
            "console: {:?}",
            self.browser.errors
        );
    }
}

#[tokio::test]
async fn a_light_for_each_request_tells_where_it_went_and_how_it_went() {
    let Some(mut scene) = Scene::start(1280, 1000).await else {
        return;
    };
    let count = scene.browser.eval("[...document.querySelectorAll('.row')].map(row => row.querySelectorAll('.light').length)").await;
    assert_eq!(count, json!([16, 16, 16, 16, 16, 16]));
    // One request was needed to open the page.
    assert_eq!(scene.lights("users").await, [vec!["ok"], vec!["elsewhere"]]);

    let (one, two) = (scene.users[0].port, scene.users[1].port);
    for (way, expected) in [
        (Way::To(two), ["elsewhere", "ok"]),
        (Way::Abort, ["fault", "fault"]),
        (Way::NoUpstream, ["error", "error"]),
        (
            Way::Late(one, Duration::from_millis(1200)),
            ["slow", "elsewhere"],
        ),
    ] {
        scene.mesh.plan(vec![way.clone()]);
        assert_eq!(scene.refresh("users").await, expected, "{way:?}");
    }
    // A pod that really fails is an error of its own cluster.
    post(&scene.users[1].url("/fault"), r#"{"mode":"error"}"#).await;
    scene.mesh.plan(vec![Way::To(two)]);
    assert_eq!(scene.refresh("users").await, ["elsewhere", "error"]);

    // Kinds differ in shape and in colour, and are large enough to be seen.
    let looks = scene
        .browser
        .eval("Object.fromEntries([...document.querySelectorAll('#users .light')].map(light => { \
               const box = light.querySelector('svg').getBoundingClientRect(); \
               return [light.dataset.kind, [light.querySelector('use').getAttribute('href'), getComputedStyle(light).color, Math.min(box.width, box.height)]]; }))")
        .await;
    let looks = looks.as_object().unwrap();
    assert_eq!(looks.len(), 6, "seen {looks:?}");
    for part in [0, 1] {
        let different: HashSet<String> =
            looks.values().map(|look| look[part].to_string()).collect();
        assert_eq!(different.len(), 6, "seen {looks:?}");
    }
    assert!(
        looks.values().all(|look| look[2].as_f64().unwrap() >= 14.0),
        "seen {looks:?}"
    );

    // The tooltip: status, latency, pod and cluster.
    scene
        .browser
        .eval("document.querySelector('#users .row:nth-child(2) .light:nth-child(2)').focus()")
        .await;
    scene
        .browser
        .wait("!document.querySelector('#tip').hidden")
        .await;
    let tip = scene.browser.text("#tip").await;
    for part in [
        "status 200",
        " ms",
        "pod user-service-ctx2-7d9f",
        "cluster ctx2",
    ] {
        assert!(tip.contains(part), "expected {part:?}, seen {tip:?}");
    }
    scene.browser.picture("wide-lights").await;

    // After sixteen the oldest light makes room.
    scene.mesh.plan(vec![Way::To(one)]);
    for _ in 0..16 {
        scene.browser.click("#users .refresh").await;
    }
    scene.browser.wait("document.querySelectorAll('#users .row:first-child .light[data-kind=ok]').length === 16").await;
    scene.check_console();
}

#[tokio::test]
async fn weights_and_pods_follow_the_clusters_and_the_measured_ratio_its_requests() {
    let Some(mut scene) = Scene::start(1280, 1000).await else {
        return;
    };
    let configured = "document.querySelector('#users .configured strong').innerText";
    scene
        .browser
        .wait(&format!("{configured} === '70% : 30%'"))
        .await;
    scene.kube.put(
        VIRTUAL_SERVICES,
        json!([virtual_service("user-service", 90, 10)]),
    );
    scene
        .browser
        .wait(&format!("{configured} === '90% : 10%'"))
        .await;
    scene
        .browser
        .wait(
            "document.querySelector('#movies .configured').innerText.includes('no VirtualService')",
        )
        .await;

    let (one, two) = (Way::To(scene.users[0].port), Way::To(scene.users[1].port));
    // The request that opened the page and 3 of 4 of these went to ctx1.
    scene.mesh.plan(vec![one.clone(), one.clone(), two, one]);
    // One after the other: answers that overtake each other would change what the last 100 are.
    scene
        .browser
        .eval(
            "(async () => { for (let n = 0; n < 119; n += 1) { \
             const button = document.querySelector('#users .refresh'); \
             button.click(); \
             while (button.ariaBusy) await new Promise(done => setTimeout(done, 1)); } })()",
        )
        .await;
    scene
        .browser
        .wait("document.querySelector('#users .measured').innerText.includes('last 100')")
        .await;
    scene
        .browser
        .wait("document.querySelector('#users .measured strong').innerText === '75% : 25%'")
        .await;
    // The interval of 75 of 100 by Wilson's formula.
    scene
        .browser
        .wait("document.querySelector('#users .measured').innerText.includes('66–82%')")
        .await;

    let pods = "[...document.querySelectorAll('#pods tbody tr')].map(row => row.innerText)";
    let rows = scene.browser.eval(pods).await;
    assert_eq!(rows.as_array().unwrap().len(), 7, "seen {rows}");
    assert!(
        rows.to_string().contains("movie-service-ctx2-node-1-x"),
        "seen {rows}"
    );
    scene
        .kube
        .put(PODS, json!([pod("user-service", "ctx1-node-9", true)]));
    scene
        .browser
        .wait(&format!("{pods}.join().includes('ctx1-node-9')"))
        .await;
    // Requests of anybody else are in the history as well.
    get(&scene.gateway.url("/movies/2")).await;
    scene
        .browser
        .wait("document.querySelector('#history tbody tr').innerText.includes('movies')")
        .await;
    scene.check_console();
}

#[tokio::test]
async fn what_cannot_be_read_is_said() {
    let Some(mut browser) = Browser::start(1280, 900).await else {
        return;
    };
    let mut gateway =
        Process::service("api-gateway", &[("USER_SERVICE_URL", "http://127.0.0.1:1")]);
    browser.open(&gateway.url("/")).await;
    browser
        .wait("document.querySelector('#pods').innerText.includes('cannot be read')")
        .await;
    browser
        .wait("document.querySelector('#users .configured').innerText.includes('cannot be read')")
        .await;
    browser
        .wait("document.querySelector('#users .light').dataset.kind === 'error'")
        .await;
    gateway.kill();
    browser
        .wait("!document.querySelector('#problem').hidden")
        .await;
    assert!(browser.errors.is_empty(), "console: {:?}", browser.errors);
}

#[tokio::test]
async fn forms_add_a_user_and_a_movie_and_say_what_is_wrong() {
    let Some(mut scene) = Scene::start(1280, 1000).await else {
        return;
    };
    scene
        .browser
        .write("#add-user [name=name]", "유관순 <b>")
        .await;
    scene
        .browser
        .write("#add-user [name=email]", "yu@example.com")
        .await;
    scene.browser.press("Enter").await;
    scene
        .browser
        .wait("document.querySelector('#users .list li:last-child b').innerText === '유관순 <b>'")
        .await;
    scene
        .browser
        .wait("document.querySelector('#add-user .result').innerText.includes('유관순 <b>')")
        .await;
    scene.browser.wait("[...document.querySelectorAll('#book [name=userId] option')].some(option => option.text === '유관순 <b>')").await;
    scene.browser.write("#add-movie [name=title]", "괴물").await;
    scene.browser.write("#add-movie [name=genre]", "SF").await;
    scene.browser.write("#add-movie [name=year]", "2006").await;
    scene.browser.click("#add-movie button").await;
    scene
        .browser
        .wait("document.querySelector('#movies .list li:last-child').innerText.includes('괴물')")
        .await;
    scene
        .browser
        .wait("document.querySelector('#movies .list li:last-child').innerText.includes('2006')")
        .await;
    // What only the service can find: a name of spaces.
    scene.browser.write("#add-user [name=name]", "   ").await;
    scene
        .browser
        .write("#add-user [name=email]", "x@example.com")
        .await;
    scene.browser.press("Enter").await;
    scene.browser.wait("document.querySelector('#add-user .result.failed').innerText.includes('name must not be empty')").await;
    // Nothing is lost that was typed.
    scene
        .browser
        .wait("document.querySelector('#add-user [name=email]').value === 'x@example.com'")
        .await;
    scene.check_console();
}

#[tokio::test]
async fn seats_are_booked_on_the_map_and_what_others_took_is_shown() {
    let Some(mut scene) = Scene::start(1280, 1000).await else {
        return;
    };
    let seat = |label: &str| format!("#seats [aria-label^='seat {label},']");
    scene.browser.click("#book button:not([type])").await;
    scene
        .browser
        .wait("document.querySelector('#book .result.failed').innerText.includes('at least one')")
        .await;
    for label in ["C5", "C6"] {
        scene.browser.click(&seat(label)).await;
    }
    scene.browser.picture("wide-seats").await;
    scene.browser.click("#book button:not([type])").await;
    scene
        .browser
        .wait("document.querySelector('#book .result').innerText === 'Booked: C5, C6'")
        .await;
    scene
        .browser
        .wait(&format!(
            "document.querySelector(\"{}\").disabled",
            seat("C5")
        ))
        .await;
    let first = scene.browser.text("#bookings .list li").await;
    assert!(
        first.contains("홍길동") && first.contains("어벤져스"),
        "seen {first}"
    );
    // Somebody else was faster.
    scene.browser.click(&seat("D1")).await;
    let other = post(
        &scene.bookings.url("/bookings/"),
        r#"{"userId":"2","movieId":"1","seats":["D1"]}"#,
    )
    .await;
    assert_eq!(other.status, 201);
    scene.browser.click("#book button:not([type])").await;
    scene
        .browser
        .wait(
            "document.querySelector('#book .result.failed').innerText.includes('D1 already taken')",
        )
        .await;
    scene
        .browser
        .wait(&format!(
            "document.querySelector(\"{}\").disabled",
            seat("D1")
        ))
        .await;
    // Another movie has its own seats.
    scene.browser.eval("(() => { const select = document.querySelector('#book [name=movieId]'); select.value = '2'; select.dispatchEvent(new Event('change')); })()").await;
    scene
        .browser
        .wait(&format!(
            "!document.querySelector(\"{}\").disabled",
            seat("D1")
        ))
        .await;
    scene.check_console();
}

#[tokio::test]
async fn steady_traffic_lights_every_service_until_it_is_switched_off() {
    let Some(mut scene) = Scene::start(1280, 1000).await else {
        return;
    };
    scene
        .browser
        .eval("document.querySelector('#rate').value = '20'")
        .await;
    scene.browser.click("#steady").await;
    for service in ["users", "movies", "bookings"] {
        scene.browser.wait(&format!("document.querySelectorAll('#{service} .row:first-child .light:not([data-kind=none])').length >= 8")).await;
    }
    scene.browser.click("#steady").await;
    scene
        .browser
        .wait("document.querySelectorAll('.refresh[aria-busy]').length === 0")
        .await;
    let rows = "performance.getEntriesByType('resource').filter(entry => entry.name.endsWith('/users/')).length";
    let before = scene.browser.eval(rows).await;
    scene
        .browser
        .eval("new Promise(done => setTimeout(done, 500))")
        .await;
    assert_eq!(scene.browser.eval(rows).await, before, "it goes on");
    scene.check_console();
}

#[tokio::test]
async fn the_page_speaks_korean_and_english() {
    let Some(mut scene) = Scene::start(1280, 1000).await else {
        return;
    };
    // Every text is there in the other language, and none of the first one is left.
    let texts = "[...document.querySelectorAll('[data-text], #legend li, .ratio small, th')].map(element => element.innerText).filter(Boolean)";
    let english = scene.browser.eval(texts).await;
    assert_eq!(
        scene.browser.eval("document.documentElement.lang").await,
        "en"
    );
    scene.browser.click("#language").await;
    scene
        .browser
        .wait("document.querySelector('#users-title').innerText === '사용자'")
        .await;
    let korean = scene.browser.eval(texts).await;
    let (english, korean) = (english.as_array().unwrap(), korean.as_array().unwrap());
    assert!(
        english.len() > 30 && english.len() == korean.len(),
        "{} and {}",
        english.len(),
        korean.len()
    );
    let untranslated: Vec<_> = english
        .iter()
        .zip(korean)
        .filter(|(one, other)| one == other && !one.as_str().unwrap().starts_with("95%"))
        .collect();
    assert!(untranslated.is_empty(), "not translated: {untranslated:?}");
    assert_eq!(scene.browser.eval("document.title").await, "극장");
    scene.browser.picture("wide-korean").await;
    // The page remembers.
    scene.open().await;
    scene
        .browser
        .wait("document.documentElement.lang === 'ko'")
        .await;
    scene.browser.click("#users .refresh").await;
    let same = "import('/ui/messages.js').then(({ messages: { en, ko } }) => Object.keys(en).join() === Object.keys(ko).join() \
                && Object.keys(en).every(key => [...en[key].matchAll(/{\\w+}/g)].sort().join() === [...ko[key].matchAll(/{\\w+}/g)].sort().join()))";
    assert_eq!(
        scene.browser.eval(same).await,
        true,
        "keys or placeholders differ"
    );
    scene.check_console();
}

#[tokio::test]
async fn the_keyboard_is_enough() {
    let Some(mut scene) = Scene::start(1280, 1000).await else {
        return;
    };
    let focused = "document.activeElement.closest('#users') && document.activeElement.className";
    for _ in 0..20 {
        scene.browser.press("Tab").await;
        if scene.browser.eval(focused).await == "refresh" {
            break;
        }
    }
    assert_eq!(
        scene.browser.eval(focused).await,
        "refresh",
        "Tab does not lead there"
    );
    let visible = scene
        .browser
        .eval("getComputedStyle(document.activeElement).outlineStyle")
        .await;
    assert_eq!(visible, "solid", "the focus is not to be seen");
    let before = scene.lights("users").await[0].len();
    scene.browser.press("Enter").await;
    scene.browser.wait(&format!("document.querySelectorAll('#users .row:first-child .light:not([data-kind=none])').length === {}", before + 1)).await;
    assert_eq!(
        scene.browser.eval(focused).await,
        "refresh",
        "the focus was lost"
    );
    // The lights are one stop; arrow keys lead from one to the next.
    scene.browser.press("Tab").await;
    scene.browser.press("ArrowRight").await;
    assert!(scene.browser.text("#tip").await.contains("status 200"));
    scene.browser.press("Tab").await;
    let row = scene
        .browser
        .eval("document.activeElement.closest('.row').innerText")
        .await;
    assert_eq!(row, "CTX2");
    let unnamed = "[...document.querySelectorAll('button, input, select')].filter(element => \
                   !(element.ariaLabel || element.innerText || element.closest('label')?.innerText)).length";
    assert_eq!(
        scene.browser.eval(unnamed).await,
        0,
        "controls without a name"
    );
    scene.check_console();
}

#[tokio::test]
async fn a_narrow_screen_needs_no_sideways_scrolling() {
    let Some(mut scene) = Scene::start(390, 844).await else {
        return;
    };
    scene
        .browser
        .wait("document.querySelectorAll('#pods tbody tr').length === 7")
        .await;
    let (one, two) = (Way::To(scene.users[0].port), Way::To(scene.users[1].port));
    scene.mesh.plan(vec![one.clone(), one, two, Way::Abort]);
    for _ in 0..12 {
        scene.refresh("users").await;
    }
    scene.browser.picture("narrow").await;
    for width in [360, 390, 768, 1280] {
        scene.browser.resize(width, 800).await;
        let too_wide = scene
            .browser
            .eval("document.documentElement.scrollWidth > innerWidth || [...document.querySelectorAll('main *')].some(element => element.getBoundingClientRect().right > innerWidth + 0.5)")
            .await;
        assert_eq!(too_wide, false, "{width} px");
        let smallest = scene.browser.eval("Math.min(...[...document.querySelectorAll('.light svg')].map(svg => svg.getBoundingClientRect().width))").await;
        assert!(smallest.as_f64().unwrap() >= 14.0, "{width} px: {smallest}");
    }
    scene.browser.resize(1280, 1000).await;
    scene.browser.picture("wide").await;
    scene.browser.dark().await;
    scene.browser.picture("dark").await;
    // Everything was read again only because it was asked for.
    until("no request is left", async || {
        (scene
            .browser
            .eval("document.querySelectorAll('[aria-busy]').length")
            .await
            == 0)
            .then_some(())
    })
    .await;
    scene.check_console();
}
