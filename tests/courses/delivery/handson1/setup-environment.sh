#!/usr/bin/env bash
# What the lab before leaves behind: the first versions of two services in namespace default, with sidecars, and the
# way in for api.example.com. The gateway hands requests to a pod of the mesh (a plain TCP relay), which calls the
# services by their own names: so the VirtualServices of the mesh decide about them, as the course expects.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

kubectl label namespace default istio-injection=enabled --overwrite
kubectl apply -f lab1.yaml
kubectl wait --for=condition=available deployment --all --timeout=120s
until [ "$(curl -s -H 'Host: api.example.com' http://localhost:8080/products)" = "Product Service v1" ] &&
  [ "$(curl -s -H 'Host: api.example.com' http://localhost:8080/users)" = "User Service v1" ]; do
  sleep 0.2
done
echo "ready: http://localhost:8080 with Host: api.example.com"
