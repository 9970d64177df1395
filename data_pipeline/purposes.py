"""What each stream of random numbers is for: one list, so that no two uses ever share their numbers.

A number may never change: orders and augmentation of running trainings hang on it.
"""

SHUFFLE, FLIP = 1, 2
BLOCKS, WINDOW = 16, 17
IDENTITIES, IDENTITY_PASS, IMAGES, IMAGE_PASS = 32, 33, 34, 35
CROP, CROP_SCALE, CROP_DOWN, CROP_RIGHT = 100, 101, 102, 103
DOWN_UP, DOWN_UP_SCALE = 110, 111
BLUR, BLUR_SIGMA = 120, 121
COLOR, BRIGHTNESS, CONTRAST, SATURATION, HUE = 130, 131, 132, 133, 134
GRAYSCALE = 140
