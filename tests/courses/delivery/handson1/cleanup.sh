#!/usr/bin/env bash
# Removes everything that the exercise and setup-environment.sh have made.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

kubectl delete -f lab1.yaml --ignore-not-found
kubectl delete deployment user-service-v2 product-service-v2 --ignore-not-found
kubectl delete virtualservice,destinationrule,peerauthentication,authorizationpolicy --all -n default
kubectl label namespace default istio-injection-
