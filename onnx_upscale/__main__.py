"""`python -m onnx_upscale`: the command line."""

from onnx_upscale.cli import main

if __name__ == "__main__":
    main()
