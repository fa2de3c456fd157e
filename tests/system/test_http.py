#!/usr/bin/python3
"""What a device serves by HTTP, with the real programs."""
import json
import signal
import urllib.error
import urllib.request

import harness
from harness import RESNET


class Http(harness.Case):
    def start(self):
        """A line of three whose first device serves HTTP; the others are told to by no one."""
        self.port = harness.free_ports(1)[0]
        path, stages = self.config()
        daemons = harness.line.Line(path, stages, self.path("logs"), lambda text: None)
        daemons.to = stages[0][1]
        self.addCleanup(self.stop_line, daemons)
        for node, _ in stages[1:]:
            daemons.start_daemon(node)
        daemons.config, plain = self.write_with_http(stages), path
        daemons.start_daemon("pi-a")
        daemons.config = plain
        self.wait_until(lambda: self.get("/health")[0] == 200, "the line is healthy")
        return daemons

    def write_with_http(self, stages):
        return self.write_config(stages, harness.CUTS, extra=f"http: 127.0.0.1:{self.port}\n", name="http.yaml")

    def get(self, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=harness.CAP_S) as answer:
                return answer.status, answer.headers["Content-Type"], answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.headers["Content-Type"], error.read().decode()
        except OSError as error:
            return 0, "", str(error)

    def test_status_is_what_convoyctl_says(self):
        daemons = self.start()
        self.ctl_ok("infer", self.pictures(20), "--to", daemons.to, "--model", RESNET)
        code, kind, text = self.get("/status")
        self.assertEqual((code, kind), (200, "application/json"))
        page, ctl = json.loads(text), json.loads(self.ctl_ok("status", "--to", daemons.to, "--json"))
        self.assertEqual(page.keys(), ctl.keys())
        self.assertEqual([(s["node"], s["state"], s["plan"], s["frames_in"]) for s in page["stages"]],
                         [(s["node"], s["state"], s["plan"], s["frames_in"]) for s in ctl["stages"]])
        self.assertEqual([s["frames_in"] for s in page["stages"]], [20, 20, 20])

    def test_metrics_are_in_prometheus_form(self):
        daemons = self.start()
        self.ctl_ok("infer", self.pictures(20), "--to", daemons.to, "--model", RESNET)
        code, kind, text = self.get("/metrics")
        self.assertEqual(code, 200)
        self.assertTrue(kind.startswith("text/plain; version=0.0.4"))
        values, types = {}, {}
        for row in text.splitlines():
            if row.startswith("# TYPE "):
                types[row.split()[2]] = row.split()[3]
            elif not row.startswith("#"):
                name, value = row.rsplit(" ", 1)
                values[name.split("{")[0]] = float(value)
        self.assertEqual(values.keys(), types.keys())
        for name, kind in types.items():
            self.assertEqual(name.endswith("_total"), kind == "counter", name)
        self.assertEqual((values["convoy_frames_in_total"], values["convoy_frames_out_total"], values["convoy_ready"]), (20, 20, 1))
        self.assertIn('convoy_info{node="pi-a",model="fmnist_resnet.onnx"', text)

    def test_health_says_for_whom_the_line_waits(self):
        daemons = self.start()
        daemons.daemons["pi-c"].send_signal(signal.SIGKILL)
        self.wait_until(lambda: self.get("/health")[0] == 503, "health is bad")
        self.assertEqual(self.get("/health")[2], "waiting for pi-b\n")
        daemons.daemons["pi-c"].wait(harness.CAP_S)
        daemons.start_daemon("pi-c")
        self.wait_until(lambda: self.get("/health") == (200, "text/plain; charset=utf-8", "ready\n"), "health is good again")

    def test_the_page_is_there_and_other_paths_are_not(self):
        self.start()
        code, kind, text = self.get("/")
        self.assertEqual((code, kind), (200, "text/html; charset=utf-8"))
        with open(harness.os.path.join(harness.ROOT, "daemon", "control", "page.html"), encoding="utf-8") as page:
            self.assertEqual(text, page.read())
        self.assertEqual(self.get("/etc/passwd")[0], 404)


if __name__ == "__main__":
    harness.main()
