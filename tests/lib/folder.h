/* A test's own folder below /tmp. */
#ifndef CONVOY_TESTS_FOLDER_H
#define CONVOY_TESTS_FOLDER_H

/* Removes a folder with all that is in it. 0, or -1 with errno. */
int folder_remove(const char *path);

#endif
