// Everything the page says, in both languages. A test checks that both have the same keys.

export const messages = {
  en: {
    title: "Theater", otherLanguage: "한국어", steady: "Steady traffic", rate: "requests/s",
    users: "Users", movies: "Movies", bookings: "Bookings", pods: "Pods in both clusters", legend: "Lights",
    name: "Name", email: "E-mail", addUser: "Add user", movieTitle: "Title", genre: "Genre", year: "Year",
    addMovie: "Add movie", who: "Who", what: "Movie", seats: "Seats", book: "Book", refresh: "Refresh",
    configured: "Configured", measured: "Measured, last {n}", interval: "95% between {low}% and {high}%",
    noWeights: "weights unknown", noneYet: "no request yet", empty: "nothing here yet",
    ok: "answered", elsewhere: "answered by the other cluster", slow: "slow (over {ms} ms)", error: "error",
    fault: "injected fault", none: "no request yet",
    lightText: "{kind}: status {status}, {ms} ms, pod {pod}, cluster {cluster}",
    booked: "Booked: {seats}", chooseSeats: "choose at least one seat", seatTaken: "seat {seat}, taken", seatFree: "seat {seat}, free",
    podName: "Pod", podService: "Service", podStatus: "Status", podReady: "Ready", podRestarts: "Restarts", podNode: "Node",
    unreachable: "cannot be read: {why}", unreachablePage: "The gateway does not answer: {why}", unknown: "unknown",
  },
  ko: {
    title: "극장", otherLanguage: "English", steady: "지속 트래픽", rate: "초당 요청",
    users: "사용자", movies: "영화", bookings: "예약", pods: "두 클러스터의 파드", legend: "신호등",
    name: "이름", email: "이메일", addUser: "사용자 추가", movieTitle: "제목", genre: "장르", year: "연도",
    addMovie: "영화 추가", who: "예약자", what: "영화", seats: "좌석", book: "예약하기", refresh: "새로고침",
    configured: "트래픽설정", measured: "실제, 최근 {n}건", interval: "95% 구간 {low}%–{high}%",
    noWeights: "가중치를 알 수 없음", noneYet: "아직 요청 없음", empty: "아직 없습니다",
    ok: "응답함", elsewhere: "다른 클러스터가 응답함", slow: "느림({ms} ms 초과)", error: "오류",
    fault: "주입된 장애", none: "아직 요청 없음",
    lightText: "{kind}: 상태 {status}, {ms} ms, 파드 {pod}, 클러스터 {cluster}",
    booked: "예약됨: {seats}", chooseSeats: "좌석을 하나 이상 고르세요", seatTaken: "좌석 {seat}, 예약됨", seatFree: "좌석 {seat}, 비어 있음",
    podName: "파드", podService: "서비스", podStatus: "상태", podReady: "준비", podRestarts: "재시작", podNode: "노드",
    unreachable: "읽을 수 없음: {why}", unreachablePage: "게이트웨이가 응답하지 않습니다: {why}", unknown: "알 수 없음",
  },
};

/** The text for a key with its {placeholders} filled in. */
export function text(language, key, values = {}) {
  const template = messages[language][key] ?? messages.en[key];
  return template.replace(/\{(\w+)\}/g, (_, name) => String(values[name] ?? ""));
}
