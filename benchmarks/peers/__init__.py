"""The peers' applications, each as its documentation would have it."""
