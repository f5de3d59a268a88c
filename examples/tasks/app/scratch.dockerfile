# An image for any platform: nothing in it runs.
FROM scratch
COPY index.html /www/index.html
