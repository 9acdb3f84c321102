"""HTTPS clients of Python that keepwarm is measured beside: curl_cffi, httpx over HTTP/2, and requests.

Each does what the programs in Rust do, in the same order; crate keepwarm-https-driver says it in full.
"""

import argparse
import asyncio
import importlib.metadata
import json
import math
import resource
import socket
import sys
import time


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("client", choices=["curl_cffi", "httpx", "requests"])
    parser.add_argument("--url", required=True)
    parser.add_argument("--address", required=True)
    parser.add_argument("--ca", required=True)
    parser.add_argument("--mode", required=True, choices=["hot", "cold", "idle"])
    parser.add_argument("--concurrency", type=int, default=1)
    parser.add_argument("--requests", type=int, required=True)
    parser.add_argument("--octets", type=int, default=1024)
    return parser.parse_args()


def url_of(task, number):
    """The URL at another host: its first label changes."""
    return f"https://c{number}.{task.url.split('.', 1)[1]}"


def everywhere(address):
    """Every name has this address."""
    host, port = address.rsplit(":", 1)
    answer = [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, int(port)))]
    socket.getaddrinfo = lambda *_, **__: answer


class CurlCffi:
    """One session that keeps its connections; it says a browser's hello, as its users want it to."""

    def __init__(self, task):
        from curl_cffi import CurlOpt, requests
        from curl_cffi._wrapper import ffi, lib

        self.task = task
        # A list of curl's own, made once: curl_cffi takes no Python list for this option.
        options = {CurlOpt.CONNECT_TO: lib.curl_slist_append(ffi.NULL, f"::{task.address}".encode())}
        if task.mode == "cold":
            options[CurlOpt.FORBID_REUSE] = 1
            options[CurlOpt.FRESH_CONNECT] = 1
        if task.mode == "idle":
            # Otherwise curl closes connections beyond a few.
            options[CurlOpt.MAXCONNECTS] = task.requests + 100
        self.given = dict(impersonate="chrome", verify=task.ca, curl_options=options)
        self.requests = requests
        self.session = requests.Session(**self.given)

    def get(self, url):
        return right(self.task, self.session.get(url))

    def for_many(self):
        return self.requests.AsyncSession(max_clients=self.task.concurrency, **self.given)


class Httpx:
    """One client with HTTP/2."""

    def __init__(self, task):
        import httpx
        import ssl

        self.task, self.httpx = task, httpx
        self.context = ssl.create_default_context(cafile=task.ca)
        self.client = httpx.Client(**self.given())

    def given(self):
        kept = 0 if self.task.mode == "cold" else self.task.requests + 100
        limits = self.httpx.Limits(max_connections=None, max_keepalive_connections=kept, keepalive_expiry=3600)
        return dict(http2=True, verify=self.context, limits=limits, trust_env=False)

    def get(self, url):
        return right(self.task, self.client.get(url))

    def for_many(self):
        return self.httpx.AsyncClient(**self.given())


class Requests:
    """One session, which speaks HTTP/1.1; many at a time need threads."""

    def __init__(self, task):
        import requests
        from requests.adapters import HTTPAdapter

        self.task = task
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.verify = task.ca
        hosts = task.requests + 100 if task.mode == "idle" else 10
        self.session.mount("https://", HTTPAdapter(pool_connections=hosts, pool_maxsize=max(10, task.concurrency)))
        if task.mode == "cold":
            self.session.headers["Connection"] = "close"

    def get(self, url):
        return right(self.task, self.session.get(url))


def right(task, response):
    """Fails on a wrong answer."""
    if response.status_code != 200 or len(response.content) != task.octets:
        raise RuntimeError(f"status {response.status_code} with {len(response.content)} octets")


def cpu():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def rss():
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS:"))


def percentile(times, share):
    return times[max(1, math.ceil(len(times) * share)) - 1] * 1e6 if times else 0.0


class Meter:
    """What the requests between start and stop took."""

    def __init__(self, version):
        self.version = version

    def start(self):
        self.rss_before, self.cpu, self.wall, self.times = rss(), cpu(), time.perf_counter(), []

    def stop(self, sent):
        wall, used, after = time.perf_counter() - self.wall, cpu() - self.cpu, rss()
        times = sorted(self.times)
        return dict(
            cpu_s=used,
            wall_s=wall,
            p50_us=percentile(times, 0.5),
            p99_us=percentile(times, 0.99),
            rss_before=self.rss_before,
            rss=after,
            sent=sent,
            version=self.version,
        )


def one_by_one(task, client, meter):
    ahead = {"hot": 1 + max(1, min(1000, task.requests // 10)), "cold": 5, "idle": 10}[task.mode]

    def one(number):
        client.get(url_of(task, number) if task.mode == "idle" else task.url)

    for number in range(ahead):
        one(number)
    meter.start()
    for number in range(ahead, ahead + task.requests):
        start = time.perf_counter()
        one(number)
        meter.times.append(time.perf_counter() - start)
    return ahead + task.requests


def ahead_of_many(task):
    return max(task.concurrency, min(1000, task.requests // 10))


async def with_tasks(task, client, meter):
    """Hot requests, many at a time, as tasks of one event loop."""
    async with client.for_many() as session:

        async def worker(numbers, times):
            for _ in numbers:
                start = time.perf_counter()
                right(task, await session.get(task.url))
                times.append(time.perf_counter() - start)

        async def many(count, times):
            numbers = iter(range(count))
            await asyncio.gather(*(worker(numbers, times) for _ in range(task.concurrency)))

        # One alone first, as everywhere.
        await many(1, [])
        await many(ahead_of_many(task), [])
        meter.start()
        await many(task.requests, meter.times)
        return meter.stop(1 + ahead_of_many(task) + task.requests)


def with_threads(task, client, meter):
    """Hot requests, many at a time, on threads."""
    from concurrent.futures import ThreadPoolExecutor

    def one(_):
        start = time.perf_counter()
        client.get(task.url)
        return time.perf_counter() - start

    client.get(task.url)
    with ThreadPoolExecutor(task.concurrency) as threads:
        list(threads.map(one, range(ahead_of_many(task))))
        meter.start()
        meter.times = list(threads.map(one, range(task.requests)))
        return meter.stop(1 + ahead_of_many(task) + task.requests)


def main():
    task = arguments()
    everywhere(task.address)
    client = {"curl_cffi": CurlCffi, "httpx": Httpx, "requests": Requests}[task.client](task)
    meter = Meter(importlib.metadata.version(task.client))
    if task.concurrency == 1:
        outcome = meter.stop(one_by_one(task, client, meter))
    elif task.client == "requests":
        outcome = with_threads(task, client, meter)
    else:
        outcome = asyncio.run(with_tasks(task, client, meter))
    json.dump(outcome, sys.stdout)


if __name__ == "__main__":
    main()
