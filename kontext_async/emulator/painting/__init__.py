"""The images that the emulator returns, with Pillow.

The rooms, in the order in which an image is painted:

- `input_images`: reads the input images of a request.
- `image_cache`: paints on a few threads, and keeps the latest images.
- `painter`: turns a `Brief` into the bytes of an image.
- `palette`: chooses the colors by the words of the prompt.
- `landscape`: paints a sky, and land or sea.
- `shapes`: outlines, gradients and glows of a landscape.
- `prints`: frames the input images and pastes them.
- `captions`: breaks text into lines, and draws the caption.
- `encoding`: encodes the image as JPEG or PNG.
"""
