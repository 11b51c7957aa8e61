# The images for amd64 and arm64: `make images`, which says what the variables are.

variable "IMAGE" {
  default = "onnx-upscale"
}

variable "VERSION" {
  default = ""
}

variable "REVISION" {
  default = ""
}

# Where the source is to be had, as a URL.
variable "SOURCE" {
  default = ""
}

group "default" {
  targets = ["cpu", "cuda"]
}

target "_both" {
  context   = "."
  platforms = ["linux/amd64", "linux/arm64"]
  args = {
    VERSION  = VERSION
    REVISION = REVISION
    SOURCE   = SOURCE
  }
}

target "cpu" {
  inherits   = ["_both"]
  dockerfile = "Dockerfile"
  tags       = ["${IMAGE}:latest", "${IMAGE}:${VERSION}"]
}

target "cuda" {
  inherits   = ["_both"]
  dockerfile = "Dockerfile.cuda"
  tags       = ["${IMAGE}:cuda", "${IMAGE}:${VERSION}-cuda"]
}
