#!/bin/sh
# Runs a night for cron, and prints only what somebody must know. The same command resumes a night that did not end well.
# Credentials: secrets.env, readable by its owner alone, with lines such as NIGHTRANK_ES_API_KEY=...
set -u
cd "$(dirname "$0")" || exit 2
umask 027
if [ -r secrets.env ]; then
    set -a
    . ./secrets.env
    set +a
fi
mkdir -p log
log="log/$(date -u +%Y-%m-%d).log"

tries=6
while :; do
    nightrank nightly --config night.toml --finish-by 06:00 >>"$log" 2>&1
    code=$?
    tries=$((tries - 1))
    # 4: another run writes to the folder. Only this code calls for nothing but waiting.
    if [ "$code" -ne 4 ] || [ "$tries" -eq 0 ]; then
        break
    fi
    sleep "${NIGHTRANK_RETRY_SECONDS:-600}"
done

case $code in
    0) ;;
    6) echo "nightrank: HELD BACK, readers keep the night before; read its report, then release it: $PWD/$log" ;;
    *) echo "nightrank: exit code $code, readers keep the night before: $PWD/$log" ;;
esac
find log -name '*.log' -mtime +30 -delete
exit "$code"
