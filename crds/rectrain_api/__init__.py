"""The API of RecTrain: what users write, what the operator and the trainer tell each other.

Pydantic models here are the only source of the CRD, of the run plan and of the records in S3.
Nothing here talks to a cluster, a store or a device, and nothing of ours is imported.
"""

VERSION = "0.1.0"
GROUP = "rectrain.dev"
API_VERSION = "v1alpha1"
KIND = "RecTrainingJob"
PLURAL = "rectrainingjobs"
