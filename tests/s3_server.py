"""A real S3 server on loopback, in memory, that can be stopped and started again."""

import os
import socket
import subprocess
import sys
import time
from contextlib import closing
from types import TracebackType
from typing import Any

import boto3

BUCKET = "bucket"


class S3Server:
    """A process with one bucket; what it holds is gone when it stops."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        os.environ |= {
            "AWS_ACCESS_KEY_ID": "user",
            "AWS_SECRET_ACCESS_KEY": "word",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def __enter__(self) -> "S3Server":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    def uri(self, path: str, bucket: str = BUCKET) -> str:
        return f"s3://{bucket}/{path}?endpoint_override={self.endpoint}&scheme=http&region=us-east-1"

    def start(self) -> None:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(300):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    break
            time.sleep(0.1)
        with closing(self._client()) as client:
            client.create_bucket(Bucket=BUCKET)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def object_names(self) -> list[str]:
        """What is in the bucket; at most a thousand objects."""
        with closing(self._client()) as client:
            keys = [entry["Key"] for entry in client.list_objects_v2(Bucket=BUCKET).get("Contents", [])]
        return [key for key in keys if not key.endswith("/")]  # pyarrow marks a folder that has become empty

    def _client(self) -> Any:
        return boto3.client("s3", endpoint_url=f"http://{self.endpoint}", region_name="us-east-1")

    def signal(self, number: int) -> None:
        self._process.send_signal(number)
