# Stand-ins for the images that deploy/ names, made from Debian's packages, for machines that reach no registry of images:
# script/image builds each target of this file under the name of the image that it stands for, in a store of its own.
FROM localhost/debian:bookworm AS debian
ENV DEBIAN_FRONTEND=noninteractive

# rust:1.95.0-bookworm, as far as this build needs it. The machine's own Rust and its crates are mounted.
FROM debian AS rust
RUN apt-get update -qq && \
    apt-get install -y -qq --no-install-recommends g++ gcc libc6-dev libssl-dev make pkg-config zlib1g-dev
ENV CARGO_HOME=/usr/local/cargo CARGO_NET_OFFLINE=true PATH=/usr/local/cargo/bin:/opt/rust/bin:/usr/bin:/bin

# gcr.io/distroless/cc-debian12:nonroot: the same packages, unpacked without their scripts.
FROM debian AS files
WORKDIR /packages
RUN apt-get update -qq && \
    apt-get download -qq base-files ca-certificates gcc-12-base libc6 libgcc-s1 libgomp1 libssl3 libstdc++6 netbase tzdata && \
    for package in *.deb; do dpkg -x "$package" /files; done
RUN echo 'nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin' >/files/etc/passwd && \
    echo 'nonroot:x:65532:' >/files/etc/group && \
    install -D -m 644 /etc/ssl/certs/ca-certificates.crt /files/etc/ssl/certs/ca-certificates.crt && \
    install -d -o 65532 -g 65532 /files/home/nonroot
FROM scratch AS distroless
COPY --from=files /files /
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
USER 65532

# apache/kafka: the jars of script/setup, with the class of theirs that makes server.properties out of the environment.
FROM debian AS kafka
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends openjdk-17-jre-headless && \
    useradd --uid 1000 --user-group appuser && \
    mkdir -p /opt/kafka/bin /opt/kafka/config /etc/kafka/docker /mnt/shared/config /var/lib/kafka/data && \
    printf '#!/bin/sh\nexec java -cp "/opt/kafka/libs/*" org.apache.kafka.tools.consumer.ConsoleConsumer "$@"\n' \
        >/opt/kafka/bin/kafka-console-consumer.sh && \
    chmod 755 /opt/kafka/bin/kafka-console-consumer.sh && \
    chown -R appuser:appuser /opt/kafka /etc/kafka /var/lib/kafka
COPY --chown=appuser:appuser . /opt/kafka/libs
USER 1000
ENV CLUSTER_ID=5L6g3nShT-eMCtK--X86sw
VOLUME /var/lib/kafka/data
CMD ["sh", "-c", "java -cp '/opt/kafka/libs/*' kafka.docker.KafkaDockerWrapper setup \
        --default-configs-dir /etc/kafka/docker --mounted-configs-dir /mnt/shared/config --final-configs-dir /opt/kafka/config \
        || test -e /var/lib/kafka/data/meta.properties; \
    exec java $KAFKA_HEAP_OPTS -XX:+UseSerialGC -cp '/opt/kafka/libs/*' kafka.Kafka /opt/kafka/config/server.properties"]

# prom/prometheus and prom/alertmanager, with their users, folders and arguments.
FROM debian AS monitoring
WORKDIR /packages
RUN apt-get update -qq && apt-get download -qq prometheus prometheus-alertmanager && \
    for package in *.deb; do dpkg -x "$package" /monitoring; done
FROM debian AS prometheus
COPY --from=monitoring /monitoring/usr/bin/prometheus /usr/bin/prometheus
RUN install -d -o nobody -g nogroup /prometheus
WORKDIR /prometheus
USER 65534
VOLUME /prometheus
ENTRYPOINT ["/bin/prometheus"]
FROM debian AS alertmanager
COPY --from=monitoring /monitoring/usr/bin/prometheus-alertmanager /usr/bin/alertmanager
COPY --from=monitoring /monitoring/usr/share/prometheus/alertmanager /usr/share/prometheus/alertmanager
RUN install -d -o nobody -g nogroup /alertmanager
WORKDIR /alertmanager
USER 65534
VOLUME /alertmanager
ENTRYPOINT ["/bin/alertmanager"]
CMD ["--config.file=/etc/alertmanager/alertmanager.yml", "--storage.path=/alertmanager"]

# Where the unit is installed.
FROM debian AS host
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends libssl3 systemd
